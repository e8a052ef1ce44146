// SPDX-License-Identifier: Apache-2.0
// Sizes of the tile of cells that a block of gin_encode.cu works on, and arithmetic on two
// channels.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "gin_encode/gin_encode_fragment.cuh"

namespace a2v::gin_encode_cuda {

inline constexpr int kWarps = 8;
inline constexpr int kThreads = kWarps * kWarpSize;

// Sizes of a tile for states of kWidth channels; 64 KB of states whatever the width.
template <int kWidth, GinEncodePrecision kPrecision>
struct Tile {
  using Format = gin_encode_cuda::Format<kPrecision>;
  static constexpr int kPairs = kWidth / 2;           // words of a row
  static constexpr int kGroups = kPairs / kWarpSize;  // warps that a cell's channels occupy
  static constexpr int kSteps = kWidth / 16;          // of k, a product
  static constexpr int kChunks = kWidth / 32;         // of two steps; even, as start_weights needs
  static constexpr int kWarpsAcross = kWidth / 64;
  static constexpr int kRows = 32 * (kWarps / kWarpsAcross);
  static constexpr int kPlane = kRows * kPairs;  // words
  static constexpr int kPlanes = Format::kSplit ? 2 : 1;
  static constexpr int kTiles = Format::kSplit ? kWidth / 8 : kWidth / 16;
  static constexpr int kTilesOfWarp = kTiles / kWarpsAcross;
  static constexpr int kChunk = 2 * kTiles * kWarpSize * 4;  // words
  static constexpr int kBlocks = kWidth <= 128 ? 2 : 1;      // that a multiprocessor holds
  static constexpr int kSharedWords = kPlanes * kPlane + 2 * kChunk + kRows;
};

__device__ inline Pair load_pair(const float* address) {
  return *reinterpret_cast<const Pair*>(address);
}

// value + factor * x, channel by channel.
__device__ inline void add_scaled(Pair& value, Pair factor, Pair x) {
  value.x = fmaf(factor.x, x.x, value.x);
  value.y = fmaf(factor.y, x.y, value.y);
}

__device__ inline void add(Pair& value, Pair x) {
  value.x += x.x;
  value.y += x.y;
}

// Two fp16 times 2^-11.
__device__ inline std::uint32_t lowered(std::uint32_t word) {
  constexpr std::uint32_t kLowUnits = 0x10001000U;
  return multiply_halves(word, kLowUnits);
}

// Keeps NaN, as torch's relu does.
__device__ inline float relu(float x) { return x < 0.0F ? 0.0F : x; }

}  // namespace a2v::gin_encode_cuda

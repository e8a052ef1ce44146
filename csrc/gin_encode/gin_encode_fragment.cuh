// SPDX-License-Identifier: Apache-2.0
// Half-precision operands of gin_encode on the tensor cores: numbers as sums of two, their words,
// and where they lie in shared memory.
//
// Numbers. A float32 x becomes hi + lo / 2^11 with hi = fp16(x), lo = fp16((x - hi) 2^11): 22 bits.
// Because lo is stored enlarged, it keeps its 11 bits down to |x| = 2^-14 (fp16's smallest normal
// number), and x its absolute error of 2^-36 below. A weight is w = hi + lo instead (weights are
// scaled so that the largest is 2^13, so lo needs no help). Then
//
//   x w ~ hi_x hi_w + hi_x lo_w + lo_x (hi_w / 2^11)
//
// with three products of fp16 in one float32 sum; the dropped lo_x lo_w is below 2^-22 of x w. It
// is what "3xTF32" computes (fp16 and tf32 have the same 11 bits), on units that are twice as fast,
// and it needs the exponents watched: see the scales in gin_encode.cu. Idea: Ootomo and Yokota,
// "Recovering single precision accuracy from Tensor Cores" (2022).
//
// Places. Operands lie in the order in which the lanes of a warp hold them (mma_m16n8k16 of
// device.cuh), so a lane reads its share of a 16x16 tile of states in one 16-byte load. Which row
// of the product a row of states becomes does not matter; rows 2i and 2i + 1 take the two that one
// lane holds, so that two neighbouring nodes of a cell lie side by side. Odd k steps are shifted by
// four lanes: then 16 lanes that read such a pair each, of neighbouring channels, meet 32 different
// banks, as do all the 16-byte accesses.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/device.cuh"
#include "gin_encode/gin_encode.h"

namespace a2v::gin_encode_cuda {

// One access of 16 or 8 bytes.
struct alignas(16) Words {
  std::uint32_t at[4];
};

struct alignas(8) TwoWords {
  std::uint32_t x, y;
};

struct alignas(8) Pair {
  float x, y;
};

inline constexpr float kLowScale = 2048.0F;  // 2^11

// Two neighbouring columns of a row as words of half-precision numbers.
template <GinEncodePrecision kPrecision>
struct Format {
  static constexpr bool kSplit = kPrecision == GinEncodePrecision::kFloat32;
  static constexpr bool kBFloat16 = kPrecision == GinEncodePrecision::kBFloat16;

  __device__ static std::uint32_t pack(Pair value) {
    if constexpr (kBFloat16) return pack_bf16(value.x, value.y);
    return pack_half(value.x, value.y);
  }

  __device__ static Pair unpack(std::uint32_t word) {
    if constexpr (kBFloat16) {
      return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000U)};
    }
    return {half_low(word), half_high(word)};
  }

  // What `high` = pack(value) left over.
  __device__ static std::uint32_t pack_rest(Pair value, std::uint32_t high, float scale) {
    const Pair rounded = unpack(high);
    return pack_half((value.x - rounded.x) * scale, (value.y - rounded.y) * scale);
  }

  __device__ static void multiply(float (&sum)[4], const Words& a, std::uint32_t b0,
                                  std::uint32_t b1) {
    const std::uint32_t b[2] = {b0, b1};
    if constexpr (kBFloat16) {
      mma_m16n8k16_bf16(sum, a.at, b);
    } else {
      mma_m16n8k16_half(sum, a.at, b);
    }
  }
};

// Where columns 2 pair, 2 pair + 1 of a row lie in a plane of states whose rows have kSteps times
// 16 columns. A plane is [rows/16][kSteps] fragments of 32 lanes x 4 words; row 2i + 1 follows row
// 2i.
template <int kSteps>
__device__ inline int state_word(int row, int pair) {
  const int step = pair / 8;
  const int lane = (row % 16 / 2 * 4 + pair % 4) ^ (step % 2 * 4);
  const int part = row % 2 + pair % 8 / 4 * 2;
  return ((row / 16 * kSteps + step) * kWarpSize + lane) * 4 + part;
}

// The power of two by which to multiply states of magnitude up to `bound`, so that they stay clear
// of fp16's 65504. States of ordinary size are left alone, so that a cell's bits do not depend on
// its neighbours in the tile; the scale is for models whose states would overflow or vanish.
__device__ inline float state_scale(float bound) {
  constexpr float kSmall = 0.0009765625F;  // 2^-10
  constexpr float kLarge = 32768.0F;       // 2^15
  if (!(bound > 0.0F && bound < INFINITY) || (bound >= kSmall && bound <= kLarge)) return 1.0F;
  const int exponent = static_cast<int>(__float_as_uint(bound) >> 23) - 127;
  return ldexpf(1.0F, min(13 - exponent, 126));
}

}  // namespace a2v::gin_encode_cuda

// SPDX-License-Identifier: Apache-2.0
// dngo acquire on the GPU: scores of all candidates on the tensor cores.
//
// A warp takes 16 candidates through everything in registers, eight hidden units at a time:
//   1. W x + b, products of 3xTF32, into the accumulators of one 16 x 8 tile;
//   2. tanh, in place, and the mean's share of it;
//   3. the tile, as left factor, times those eight columns of F, into the 16 x H accumulators of
//      F phi. An accumulator holds columns 2t, 2t + 1 of a row and a left factor t, t + 4, so the
//      hidden units of a tile are renamed instead of moved: F is packed with column 2t in row t and
//      column 2t + 1 in row t + 4. Tiles of F above the diagonal are skipped.
// In the end |F phi|^2 is a sum of squares over four lanes. W and F lie in shared memory as the
// lanes read them, split into two tf32: one 16-byte load a lane feeds three products. Blocks pack
// them once and then walk over candidates; nothing is exchanged between warps.
//
// For D = 16, H = 128 a candidate takes 2 (D H + H^2 / 2) 3 tf32 operations and H tanh: 0.1 ms for
// 423,624 candidates by the tensor cores of an H100, the same again by tanh. 87 KB of shared
// memory.

#include "common/launch.cuh"
#include "dngo/dngo_cuda.h"
#include "dngo/scalar.cuh"

namespace a2v {
namespace {

constexpr int kScoreThreads = 256;
constexpr int kScoreWarps = kScoreThreads / kWarpSize;
constexpr int kWarpRows = 16;
constexpr int kTile = 8;

// Floats of shared memory: fragments of F (lower triangle of tiles), of W, then m and b.
template <int kHiddenTiles, int kInputTiles>
struct ScoreShape {
  static constexpr int kFragment = 4 * kWarpSize;  // of a tile: two elements a lane, split in two
  static constexpr int kFactorTiles = kHiddenTiles * (kHiddenTiles + 1) / 2;
  static constexpr int kWeight = kFactorTiles * kFragment;
  static constexpr int kCoefficients = kWeight + kHiddenTiles * kInputTiles * kFragment;
  static constexpr int kBias = kCoefficients + kHiddenTiles * kTile;
  static constexpr int kSize = kBias + kHiddenTiles * kTile;
};

// Two elements of a right factor, as lanes read them.
__device__ inline float4 split_pair(float b0, float b1) {
  const SplitTf32 first = split_tf32(b0);
  const SplitTf32 second = split_tf32(b1);
  return make_float4(first.high, first.low, second.high, second.low);
}

__device__ inline void multiply(float (&d)[4], const float (&high)[4], const float (&low)[4],
                                const float4& b) {
  const float b_high[2] = {b.x, b.z};
  const float b_low[2] = {b.y, b.w};
  mma_m16n8k8_3xtf32(d, high, low, b_high, b_low);
}

__device__ inline void split_tile(const float (&a)[4], float (&high)[4], float (&low)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const SplitTf32 parts = split_tf32(a[i]);
    high[i] = parts.high;
    low[i] = parts.low;
  }
}

// Seed s into shared memory, zeros where hidden units or inputs are padding.
template <int kHiddenTiles, int kInputTiles>
__device__ inline void pack_seed(const DngoAcquireParams& params, std::int64_t s, float* shared) {
  using Shape = ScoreShape<kHiddenTiles, kInputTiles>;
  const int inputs = params.layout.num_inputs;
  const int hidden = params.layout.num_hidden;
  const int thread = static_cast<int>(threadIdx.x);
  const float* factor = params.factor + s * hidden * hidden;
  const float* weight = params.weight + s * hidden * inputs;
  auto* fragments = reinterpret_cast<float4*>(shared);
  const auto factor_at = [&](int row, int column) {
    return column <= row && row < hidden ? factor[row * hidden + column] : 0.0F;
  };
  const auto weight_at = [&](int row, int column) {
    return row < hidden && column < inputs ? weight[row * inputs + column] : 0.0F;
  };
  // Tile (column of tiles k, row of tiles n >= k) stands at k T - k (k - 1) / 2 + n - k.
  for (int i = thread; i < kHiddenTiles * kHiddenTiles * kWarpSize; i += kScoreThreads) {
    const int lane = i % kWarpSize;
    const int n = i / kWarpSize % kHiddenTiles;
    const int k = i / kWarpSize / kHiddenTiles;
    if (n < k) continue;
    const int row = n * kTile + lane / 4;
    const int column = k * kTile + lane % 4 * 2;
    const int tile = k * kHiddenTiles - k * (k - 1) / 2 + n - k;
    fragments[tile * kWarpSize + lane] =
        split_pair(factor_at(row, column), factor_at(row, column + 1));
  }
  fragments += Shape::kWeight / 4;
  for (int i = thread; i < kHiddenTiles * kInputTiles * kWarpSize; i += kScoreThreads) {
    const int lane = i % kWarpSize;
    const int row = i / kWarpSize / kInputTiles * kTile + lane / 4;
    const int column = i / kWarpSize % kInputTiles * kTile + lane % 4;
    fragments[i] = split_pair(weight_at(row, column), weight_at(row, column + 4));
  }
  for (int h = thread; h < kHiddenTiles * kTile; h += kScoreThreads) {
    const bool real = h < hidden;
    shared[Shape::kCoefficients + h] = real ? params.coefficients[s * hidden + h] : 0.0F;
    shared[Shape::kBias + h] = real ? params.bias[s * hidden + h] : 0.0F;
  }
}

// Candidates first + g and first + g + 8 as left factors.
template <int kInputTiles>
__device__ inline void load_candidates(const DngoAcquireParams& params, std::int64_t first,
                                       int lane, float (&high)[kInputTiles][4],
                                       float (&low)[kInputTiles][4]) {
  const int inputs = params.layout.num_inputs;
#pragma unroll
  for (int k = 0; k < kInputTiles; ++k) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t q = first + lane / 4 + i % 2 * 8;
      const int d = k * kTile + lane % 4 + i / 2 * 4;
      x[i] = q < params.num_candidates && d < inputs ? params.candidates[q * inputs + d] : 0.0F;
    }
    split_tile(x, high[k], low[k]);
  }
}

// Mean and |F phi|^2 of candidates g and g + 8, the same in the four lanes of a group.
struct Moments {
  float mean[2];
  float square[2];
};

__device__ inline float sum_of_four(float value) {
  value += __shfl_xor_sync(kWholeWarp, value, 1);
  return value + __shfl_xor_sync(kWholeWarp, value, 2);
}

template <int kHiddenTiles, int kInputTiles>
__device__ inline Moments evaluate(const float* shared, const float (&high)[kInputTiles][4],
                                   const float (&low)[kInputTiles][4], int lane) {
  using Shape = ScoreShape<kHiddenTiles, kInputTiles>;
  const auto* factor = reinterpret_cast<const float4*>(shared) + lane;
  const auto* weight = reinterpret_cast<const float4*>(shared + Shape::kWeight) + lane;
  const auto* coefficients =
      reinterpret_cast<const float2*>(shared + Shape::kCoefficients) + lane % 4;
  const auto* bias = reinterpret_cast<const float2*>(shared + Shape::kBias) + lane % 4;
  float product[kHiddenTiles][4] = {};
  Moments moments{};
#pragma unroll 1
  for (int k = 0; k < kHiddenTiles; ++k) {
    const float2 b = bias[k * 4];
    float phi[4] = {b.x, b.y, b.x, b.y};
#pragma unroll
    for (int i = 0; i < kInputTiles; ++i) {
      multiply(phi, high[i], low[i], weight[(k * kInputTiles + i) * kWarpSize]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      phi[i] = tanh_of(phi[i]);
    }
    const float2 m = coefficients[k * 4];
    moments.mean[0] = fmaf(m.x, phi[0], fmaf(m.y, phi[1], moments.mean[0]));
    moments.mean[1] = fmaf(m.x, phi[2], fmaf(m.y, phi[3], moments.mean[1]));
    const float left[4] = {phi[0], phi[2], phi[1], phi[3]};
    float left_high[4];
    float left_low[4];
    split_tile(left, left_high, left_low);
#pragma unroll
    for (int n = 0; n < kHiddenTiles; ++n) {
      if (n >= k) {
        multiply(product[n], left_high, left_low, factor[(n - k) * kWarpSize]);
      }
    }
    factor += (kHiddenTiles - k) * kWarpSize;
  }
#pragma unroll
  for (int n = 0; n < kHiddenTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      moments.square[i / 2] = fmaf(product[n][i], product[n][i], moments.square[i / 2]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    moments.mean[i] = sum_of_four(moments.mean[i]);
    moments.square[i] = sum_of_four(moments.square[i]);
  }
  return moments;
}

template <int kHiddenTiles, int kInputTiles>
__global__ void __launch_bounds__(kScoreThreads)
    score_kernel(DngoAcquireParams params, float* scores) {
  A2V_DYN_SMEM(float, shared);
  const std::int64_t s = blockIdx.y;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  pack_seed<kHiddenTiles, kInputTiles>(params, s, shared);
  __syncthreads();
  const float noise = params.noise[s];
  const float target = params.target[s];
  const std::int64_t stride = std::int64_t{gridDim.x} * kScoreWarps * kWarpRows;
  for (std::int64_t first = (std::int64_t{blockIdx.x} * kScoreWarps + warp) * kWarpRows;
       first < params.num_candidates; first += stride) {
    float high[kInputTiles][4];
    float low[kInputTiles][4];
    load_candidates(params, first, lane, high, low);
    const Moments moments = evaluate<kHiddenTiles, kInputTiles>(shared, high, low, lane);
    // Of the four lanes that have both candidates, the first two write one each.
    const int which = lane % 4;
    const std::int64_t q = first + lane / 4 + which * 8;
    if (which < 2 && q < params.num_candidates) {
      const float mean = which == 0 ? moments.mean[0] : moments.mean[1];
      const float variance = (which == 0 ? moments.square[0] : moments.square[1]) + noise;
      const std::int64_t at = s * params.num_candidates + q;
      scores[at] = params.score == DngoScore::kReleased
                       ? released_improvement(mean, variance, target)
                       : log_improvement(mean, sqrtf(variance), target);
      if (params.mean != nullptr) {
        params.mean[at] = mean;
        params.variance[at] = variance;
      }
    }
  }
}

template <int kHiddenTiles, int kInputTiles>
void launch_score(const DngoAcquireParams& params, std::int64_t seeds, float* scores,
                  CudaStream stream) {
  constexpr std::int64_t kBlockRows = kScoreWarps * kWarpRows;
  const std::int64_t tiles = (params.num_candidates + kBlockRows - 1) / kBlockRows;
  // Two blocks a multiprocessor in all; each packs once and walks on.
  const std::int64_t wanted = (2 * multiprocessors() + seeds - 1) / seeds;
  const std::int64_t blocks = wanted < tiles ? wanted : tiles;
  launch(score_kernel<kHiddenTiles, kInputTiles>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(seeds)), dim3(kScoreThreads),
         sizeof(float) * ScoreShape<kHiddenTiles, kInputTiles>::kSize, stream, params, scores);
}

}  // namespace

void dngo_score_cuda(const DngoAcquireParams& params, std::int64_t seeds, float* scores,
                     CudaStream stream) {
  if (seeds == 0 || params.num_candidates == 0) return;
  const bool few_units = params.layout.num_hidden <= 64;
  const bool few_inputs = params.layout.num_inputs <= 16;
  if (few_units && few_inputs) {
    launch_score<8, 2>(params, seeds, scores, stream);
  } else if (few_units) {
    launch_score<8, 8>(params, seeds, scores, stream);
  } else if (few_inputs) {
    launch_score<16, 2>(params, seeds, scores, stream);
  } else {
    launch_score<16, 8>(params, seeds, scores, stream);
  }
}

}  // namespace a2v

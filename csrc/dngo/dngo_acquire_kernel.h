// SPDX-License-Identifier: Apache-2.0
// dngo acquire on one seed, for the instruction set of the including file.
//
// Layout: candidates are the lanes, so that everything after the two products is lane by lane. A
// tile of candidates (16, or 32 with AVX-512) is transposed, multiplied by W in blocks of kRows
// hidden units, goes through tanh, stays in the first-level cache as phi [H, tile] and is
// multiplied by the factor F, of which |F phi|^2 is the variance. F is the inverse of a Cholesky
// factor: triangular, so half the work of a full matrix, and a sum of squares, so the variance
// cannot cancel, whatever the prior (I - U U^T, the low-rank form for M < H, loses half the digits
// of a confident posterior). W and F are packed in blocks of rows, [H/kRows][depth][kRows], so that
// they stream. Bound by F: H^2/2 fused multiply-adds a candidate, against 16 H for the basis.
#pragma once

#include <cstddef>

#include "common/functions.h"
#include "common/simd.h"
#include "dngo/dngo.h"
#include "dngo/dngo_cpu.h"

namespace a2v::A2V_SIMD {
namespace dngo_acquire_detail {

#if defined(A2V_SIMD_AVX512)
constexpr int kRows = 12;  // 24 accumulators of 32 registers
constexpr int kGroups = 2;
#elif defined(A2V_SIMD_AVX2)
constexpr int kRows = 6;  // 12 accumulators of 16 registers
constexpr int kGroups = 1;
#else
constexpr int kRows = 2;
constexpr int kGroups = 1;
#endif
constexpr int kTile = kGroups * kLanes;

// The workspace of dngo_acquire_floats.
struct Packed {
  int inputs;
  int hidden;           // padded to kRows, with units of value zero
  float* weight;        // [hidden / kRows][D][kRows]
  float* bias;          // [hidden]
  float* coefficients;  // [hidden]
  float* factor;  // [hidden / kRows][up to the block's last row][kRows], zeros above the diagonal
  float* candidates;  // [D][kTile]
  float* basis;       // [hidden][kTile]
};

inline Packed place(const DngoLayout& layout, float* workspace) {
  Packed packed{};
  packed.inputs = layout.num_inputs;
  packed.hidden = (layout.num_hidden + kRows - 1) / kRows * kRows;
  packed.weight = workspace;
  packed.bias = packed.weight + packed.hidden * packed.inputs;
  packed.coefficients = packed.bias + packed.hidden;
  packed.factor = packed.coefficients + packed.hidden;
  const int blocks = packed.hidden / kRows;
  packed.candidates = packed.factor + kRows * kRows * blocks * (blocks + 1) / 2;
  packed.basis = packed.candidates + packed.inputs * kTile;
  return packed;
}

// acc[r] += sum over k < depth of matrix[k][r] columns[k].
A2V_INLINE void multiply_rows(const float* matrix, int depth, const float* columns,
                              V16 (&acc)[kRows][kGroups]) {
  for (int k = 0; k < depth; ++k, matrix += kRows, columns += kTile) {
    V16 value[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      value[g] = load(columns + g * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V16 element = set1(matrix[r]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        acc[r][g] = fma(element, value[g], acc[r][g]);
      }
    }
  }
}

// phi = tanh(W x + b) of the tile, and its mean m . phi.
inline void evaluate_basis(const Packed& packed, V16 (&mean)[kGroups]) {
  for (int row = 0; row < packed.hidden; row += kRows) {
    V16 acc[kRows][kGroups];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        acc[r][g] = set1(packed.bias[row + r]);
      }
    }
    multiply_rows(packed.weight + row * packed.inputs, packed.inputs, packed.candidates, acc);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V16 coefficient = set1(packed.coefficients[row + r]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        const V16 phi = tanh_of(acc[r][g]);
        store(packed.basis + (row + r) * kTile + g * kLanes, phi);
        mean[g] = fma(coefficient, phi, mean[g]);
      }
    }
  }
}

// |F phi|^2 of the tile.
inline void evaluate_square(const Packed& packed, V16 (&square)[kGroups]) {
  const float* factor = packed.factor;
  for (int depth = kRows; depth <= packed.hidden; depth += kRows) {
    V16 acc[kRows][kGroups];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        acc[r][g] = zero();
      }
    }
    multiply_rows(factor, depth, packed.basis, acc);
    factor += depth * kRows;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        square[g] = fma(acc[r][g], acc[r][g], square[g]);
      }
    }
  }
}

// Candidates [count, D] to [D][kTile], zeros behind the last one.
inline void transpose(const float* from, int count, const Packed& packed) {
  for (int lane = 0; lane < kTile; ++lane) {
    for (int d = 0; d < packed.inputs; ++d) {
      packed.candidates[d * kTile + lane] = lane < count ? from[lane * packed.inputs + d] : 0.0F;
    }
  }
}

}  // namespace dngo_acquire_detail

void dngo_acquire_pack(const DngoAcquireParams& params, std::int64_t seed, float* workspace) {
  using namespace dngo_acquire_detail;
  const int inputs = params.layout.num_inputs;
  const int hidden = params.layout.num_hidden;
  const Packed packed = place(params.layout, workspace);
  const float* weight = params.weight + seed * hidden * inputs;
  const float* factor = params.factor + seed * hidden * hidden;
  float* next = packed.factor;
  for (int row = 0; row < packed.hidden; row += kRows) {
    for (int r = 0; r < kRows; ++r) {
      const int h = row + r;
      const bool real = h < hidden;
      packed.bias[h] = real ? params.bias[seed * hidden + h] : 0.0F;
      packed.coefficients[h] = real ? params.coefficients[seed * hidden + h] : 0.0F;
      for (int d = 0; d < inputs; ++d) {
        packed.weight[row * inputs + d * kRows + r] = real ? weight[h * inputs + d] : 0.0F;
      }
      for (int k = 0; k < row + kRows; ++k) {
        next[k * kRows + r] =
            real && k <= h ? factor[static_cast<std::ptrdiff_t>(h) * hidden + k] : 0.0F;
      }
    }
    next += (row + kRows) * kRows;
  }
}

void dngo_acquire(const DngoAcquireParams& params, std::int64_t seed, std::int64_t first,
                  std::int64_t last, float* workspace, float* scores) {
  using namespace dngo_acquire_detail;
  const Packed packed = place(params.layout, workspace);
  const V16 noise = set1(params.noise[seed]);
  const V16 target = set1(params.target[seed]);
  const std::ptrdiff_t row = seed * params.num_candidates;
  for (std::int64_t start = first; start < last; start += kTile) {
    const int count = last - start < kTile ? static_cast<int>(last - start) : kTile;
    transpose(params.candidates + start * packed.inputs, count, packed);
    V16 mean[kGroups];
    V16 variance[kGroups];
    for (int g = 0; g < kGroups; ++g) {
      mean[g] = zero();
      variance[g] = zero();
    }
    evaluate_basis(packed, mean);
    evaluate_square(packed, variance);
    for (int g = 0; g < kGroups && g * kLanes < count; ++g) {
      const std::ptrdiff_t at = start + g * kLanes;
      const int lanes = count - g * kLanes < kLanes ? count - g * kLanes : kLanes;
      const V16 total = variance[g] + noise;
      const V16 score = params.score == DngoScore::kReleased
                            ? released_improvement(mean[g], total, target)
                            : log_improvement(mean[g], sqrt(total), target);
      store_first(scores + (at - first), score, lanes);
      if (params.mean != nullptr) {
        store_first(params.mean + row + at, mean[g], lanes);
        store_first(params.variance + row + at, total, lanes);
      }
    }
  }
}

}  // namespace a2v::A2V_SIMD

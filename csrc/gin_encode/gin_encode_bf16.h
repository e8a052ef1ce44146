// SPDX-License-Identifier: Apache-2.0
// Products of gin_encode in bfloat16: factors are rounded to it, sums stay float32.
//
// VDPBF16PS adds two products a lane, so factors stand in pairs along the depth: a tile is panels
// [W/16][rows][16] of bfloat16, a weight [out/16][in/2][16][2]. Sums run over the depth in order.
// Without the instruction the same is computed in float32: slower than Float32, so only the tests
// use it. Source: Intel SDM, VDPBF16PS and VCVTNEPS2BF16; the instructions also flush subnormals.
#pragma once

#include "gin_encode/gin_encode_kernel.h"

namespace a2v::A2V_SIMD {

// To nearest, ties to even.
inline std::uint16_t to_bfloat16(float a) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<std::uint16_t>(bits >> 16 | 0x40U);  // stays no number
  }
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

A2V_INLINE void store_bfloat16(std::uint16_t* p, V16 a) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.x)));
#else
  float lane[kLanes];
  store(lane, a);
  for (int i = 0; i < kLanes; ++i) {
    p[i] = to_bfloat16(lane[i]);
  }
#endif
}

// acc + x0 w0 + x1 w1 of a pair x0, x1 and sixteen pairs of weights.
A2V_INLINE V16 add_pairs(V16 acc, std::uint32_t x, const std::uint32_t* weights) {
#if defined(__AVX512BF16__)
  const __m512i left = _mm512_set1_epi32(static_cast<int>(x));
  const __m512i right = _mm512_loadu_si512(weights);
  return {
      _mm512_dpbf16_ps(acc.x, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right))};
#else
  const auto half = [](std::uint32_t word, int which) {
    const std::uint32_t bits = which == 0 ? word << 16 : word & 0xffff0000U;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  };
  for (int which = 1; which >= 0; --which) {
    float factor[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      factor[i] = half(weights[i], which);
    }
    acc = fma(set1(half(x, which)), load(factor), acc);
  }
  return acc;
#endif
}

struct Bfloat16 {
  using Element = std::uint16_t;
  static A2V_INLINE void store(std::uint16_t* p, V16 a) { store_bfloat16(p, a); }

  // As that of Float32; every zero is multiplied, because an instruction adds two products.
  template <class Sink>
  static A2V_INLINE void multiply(const EncodeLinear& linear, const std::uint16_t* x, int rows,
                                  float* /*room*/, Sink&& sink) {
    const int depth = linear.in;
    const int panels = panels_of(linear.out);
    const std::ptrdiff_t right_stride = std::ptrdiff_t{(depth + 1) / 2} * kLanes;
    const auto* right = reinterpret_cast<const std::uint32_t*>(linear.weight);
    for (int panel = 0; panel < panels; panel += kBlockPanels) {
      const int count = panels - panel < kBlockPanels ? panels - panel : kBlockPanels;
      for (int row = 0; row < rows; row += kBlockRows) {
        const int left_rows = rows - row < kBlockRows ? rows - row : kBlockRows;
        multiply_block(x + row * kLanes, depth, right + panel * right_stride, right_stride, count,
                       left_rows, [&](int r, int q, V16 y) { sink(row + r, panel + q, y); });
      }
    }
  }

 private:
  // A whole block, of which `rows` rows and `count` panels are wanted: tiles have room for the
  // rest of the rows, and the rest of the panels repeats the first.
  template <class Sink>
  static A2V_INLINE void multiply_block(const std::uint16_t* x, int depth,
                                        const std::uint32_t* weight, std::ptrdiff_t right_stride,
                                        int count, int rows, Sink&& sink) {
    V16 acc[kBlockRows][kBlockPanels];
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r) {
#pragma GCC unroll 16
      for (int q = 0; q < kBlockPanels; ++q) {
        acc[r][q] = zero();
      }
    }
    const std::uint32_t* right[kBlockPanels];
    for (int q = 0; q < kBlockPanels; ++q) {
      right[q] = weight + (q < count ? q : 0) * right_stride;
    }
    for (int k = 0; k < depth; k += 2) {
      const std::uint16_t* left = x + (k / kLanes) * kTilePanel + k % kLanes;
#pragma GCC unroll 16
      for (int r = 0; r < kBlockRows; ++r) {
        std::uint32_t pair;
        __builtin_memcpy(&pair, left + r * kLanes, sizeof pair);
#pragma GCC unroll 16
        for (int q = 0; q < kBlockPanels; ++q) {
          acc[r][q] = add_pairs(acc[r][q], pair, right[q] + k / 2 * kLanes);
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (int q = 0; q < count; ++q) {
        sink(r, q, acc[r][q]);
      }
    }
  }
};

// weight [out, in] row-major to pairs, panels [out/16][in/2][16][2], zeros beyond `out` and `in`.
inline void pack_pairs(const float* weight, int out, int in, float* packed) {
  auto* next = reinterpret_cast<std::uint16_t*>(packed);
  for (int start = 0; start < out; start += kLanes) {
    for (int k = 0; k < in; k += 2) {
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int half = 0; half < 2; ++half) {
          const bool inside = start + lane < out && k + half < in;
          *next++ = inside ? to_bfloat16(weight[(start + lane) * std::ptrdiff_t{in} + k + half])
                           : std::uint16_t{0};
        }
      }
    }
  }
}

}  // namespace a2v::A2V_SIMD

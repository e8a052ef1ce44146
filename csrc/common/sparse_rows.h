// SPDX-License-Identifier: Apache-2.0
// Products whose left factor is half zeros, as states are after ReLU.
//
// Rows are taken in pairs. The columns where both rows of a pair are zero are left out: a product
// takes a step for each of the others, a list of which is made first. What is left out is
// x + 0 * w = x, so results are those of `multiply` (gemm.h) to the bit, if no w is infinite or no
// number. Where half of the values are zero at random, a quarter of the steps goes; where rows are
// alike, as the states of one cell's nodes are, nearly half.
//
// A pair, because it is the least that keeps the multiply-adds busy: a step of two rows and three
// panels (AVX2) is 12 of them for 6 loads of the right factor and 2 of the left. A row alone would
// skip all of its zeros, but needs a load for each multiply-add: tried, no faster.
#pragma once

#include "common/gemm.h"

namespace a2v::A2V_SIMD {

#if defined(A2V_SIMD_AVX512)
constexpr int kPairPanels = 4;
#elif defined(A2V_SIMD_AVX2)
constexpr int kPairPanels = 3;
#else
constexpr int kPairPanels = 1;
#endif

// The columns that pairs of rows have values in, ascending: pair p has counts[p] of them from
// p * width on. A column c stands there as where it is in A and in B, in floats.
struct PairColumns {
  std::uint32_t* left;   // (c / 16) * (A's stride) + c % 16
  std::uint32_t* right;  // 16 c
  int* counts;
  int width;  // room of a pair, a multiple of 16
};

// Words of 32 bits that the columns of `rows` rows of width `depth` take.
constexpr std::ptrdiff_t pair_room(int rows, int depth) {
  return std::ptrdiff_t{(rows + 1) / 2} * (2 * panels_of(depth) * kLanes + 1);
}

inline PairColumns pair_columns(float* room, int rows, int depth) {
  const int width = panels_of(depth) * kLanes;
  const std::ptrdiff_t size = std::ptrdiff_t{(rows + 1) / 2} * width;
  auto* words = reinterpret_cast<std::uint32_t*>(room);
  return {.left = words,
          .right = words + size,
          .counts = reinterpret_cast<int*>(words + 2 * size),
          .width = width};
}

#if defined(A2V_SIMD_AVX2)
// Byte i of entry m is the number of the i-th set bit of m.
struct SetBits {
  std::uint64_t of[256];

  constexpr SetBits() : of{} {
    for (unsigned m = 0; m < 256; ++m) {
      int found = 0;
      for (unsigned bit = 0; bit < 8; ++bit) {
        if ((m >> bit & 1U) != 0) {
          of[m] |= std::uint64_t{bit} << (8 * found++);
        }
      }
    }
  }
};
inline constexpr SetBits kSetBits;
#endif

// Appends the lanes of a mask as left + lane and right + 16 lane; returns how many. Writes up to
// 16 of each.
A2V_INLINE int append_lanes(std::uint32_t mask, std::uint32_t left, std::uint32_t right,
                            std::uint32_t* to_left, std::uint32_t* to_right) {
#if defined(A2V_SIMD_AVX512)
  const __m512i lanes = _mm512_maskz_compress_epi32(
      static_cast<__mmask16>(mask),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  _mm512_storeu_si512(to_left, _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(left))));
  _mm512_storeu_si512(to_right, _mm512_add_epi32(_mm512_slli_epi32(lanes, 4),
                                                 _mm512_set1_epi32(static_cast<int>(right))));
  return __builtin_popcount(mask);
#elif defined(A2V_SIMD_AVX2)
  int count = 0;
  for (std::uint32_t half = 0; half < 2; ++half, mask >>= 8) {
    const auto bytes = static_cast<long long>(kSetBits.of[mask & 255U]);
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes));
    const __m256i first = _mm256_set1_epi32(static_cast<int>(left + 8 * half));
    const __m256i second = _mm256_set1_epi32(static_cast<int>(right + 8 * kLanes * half));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_left + count),
                        _mm256_add_epi32(lanes, first));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_right + count),
                        _mm256_add_epi32(_mm256_slli_epi32(lanes, 4), second));
    count += __builtin_popcount(mask & 255U);
  }
  return count;
#else
  int count = 0;
  for (; mask != 0; mask &= mask - 1, ++count) {
    const auto lane = static_cast<std::uint32_t>(__builtin_ctz(mask));
    to_left[count] = left + lane;
    to_right[count] = right + lane * kLanes;
  }
  return count;
#endif
}

// Lists the columns of A [rows, depth], whose last panel must have zeros beyond `depth`. Returns
// how many there are in all pairs.
inline std::int64_t list_columns(ConstPanels a, int rows, int depth, const PairColumns& to) {
  std::int64_t all = 0;
  for (int first = 0; first < rows; first += 2) {
    const std::ptrdiff_t at = std::ptrdiff_t{first / 2} * to.width;
    const float* row = a.data + first * kLanes;
    const std::ptrdiff_t second = first + 1 < rows ? kLanes : 0;
    int count = 0;
    for (int p = 0; p < panels_of(depth); ++p) {
      const std::ptrdiff_t panel = p * a.stride;
      const std::uint32_t mask =
          bits(load(row + panel) != zero()) | bits(load(row + panel + second) != zero());
      count += append_lanes(mask, static_cast<std::uint32_t>(panel),
                            static_cast<std::uint32_t>(p * kLanes * kLanes), to.left + at + count,
                            to.right + at + count);
    }
    to.counts[first / 2] = count;
    all += count;
  }
  return all;
}

// Products of a pair, its second row `second` floats behind the first, with `Count` panels of B,
// [2, Count, 16]. A function of its own, because the loop needs every register.
template <int Count>
__attribute__((noinline)) void multiply_pair(const float* x, std::ptrdiff_t second,
                                             const std::uint32_t* left, const std::uint32_t* right,
                                             std::ptrdiff_t count, ConstPanels b, float* out) {
  V16 acc[2][Count];
  const float* panel[Count];
#pragma GCC unroll 16
  for (int q = 0; q < Count; ++q) {
    acc[0][q] = acc[1][q] = zero();
    panel[q] = b.data + q * b.stride;
  }
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const std::size_t from = left[i];
    const std::size_t at = right[i];
    const V16 factor[2] = {set1(x[from]), set1(x[from + static_cast<std::size_t>(second)])};
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      const V16 value = load(panel[q] + at);
      acc[0][q] = fma(factor[0], value, acc[0][q]);
      acc[1][q] = fma(factor[1], value, acc[1][q]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < 2 * Count; ++i) {
    store(out + i * kLanes, acc[i / Count][i % Count]);
  }
}

template <int Count, class Sink>
A2V_INLINE void multiply_pairs(ConstPanels a, int rows, const PairColumns& columns, ConstPanels b,
                               int panel, Sink&& sink) {
  alignas(64) float sums[2 * Count * kLanes];
  const ConstPanels right{b.data + panel * b.stride, b.stride};
  for (int first = 0; first < rows; first += 2) {
    const std::ptrdiff_t at = std::ptrdiff_t{first / 2} * columns.width;
    const std::ptrdiff_t second = first + 1 < rows ? kLanes : 0;
    multiply_pair<Count>(a.data + first * kLanes, second, columns.left + at, columns.right + at,
                         columns.counts[first / 2], right, sums);
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      sink(first, panel + q, load(sums + q * kLanes));
    }
    for (int q = 0; q < Count && second != 0; ++q) {
      sink(first + 1, panel + q, load(sums + (Count + q) * kLanes));
    }
  }
}

// The last `count` < Count panels.
template <int Count, class Sink>
A2V_INLINE void multiply_rest_of_pairs(ConstPanels a, int rows, const PairColumns& columns,
                                       ConstPanels b, int panel, int count, Sink&& sink) {
  if constexpr (Count > 1) {
    if (count == Count - 1) {
      multiply_pairs<Count - 1>(a, rows, columns, b, panel, sink);
    } else {
      multiply_rest_of_pairs<Count - 1>(a, rows, columns, b, panel, count, sink);
    }
  }
}

// As `multiply` of gemm.h, over the columns of A that were listed.
template <class Sink>
A2V_INLINE void multiply_listed(ConstPanels a, int rows, const PairColumns& columns, ConstPanels b,
                                int panels, Sink&& sink) {
  int panel = 0;
  for (; panel + kPairPanels <= panels; panel += kPairPanels) {
    multiply_pairs<kPairPanels>(a, rows, columns, b, panel, sink);
  }
  multiply_rest_of_pairs<kPairPanels>(a, rows, columns, b, panel, panels - panel, sink);
}

// `multiply` by the faster way, where many of A's values may be zero. room: pair_room(rows, depth).
template <class Sink>
A2V_INLINE void multiply_rectified(ConstPanels a, int rows, int depth, ConstPanels b, int panels,
                                   float* room, Sink&& sink) {
  const PairColumns columns = pair_columns(room, rows, depth);
  const std::int64_t whole = std::int64_t{(rows + 1) / 2} * depth;
  if (10 * list_columns(a, rows, depth, columns) < 9 * whole) {
    multiply_listed(a, rows, columns, b, panels, sink);
  } else {
    multiply(a, rows, depth, b, panels, sink);
  }
}

}  // namespace a2v::A2V_SIMD

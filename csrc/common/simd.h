// SPDX-License-Identifier: Apache-2.0
// Sixteen floats at a time, so that one kernel body serves every instruction set.
//
// A kernel is written once, in `x_kernel.h`, inside `namespace a2v::A2V_SIMD`, and included by
// x_scalar.cpp, x_avx2.cpp and x_avx512.cpp. The flags of the file choose what V16 is: four vectors
// of the baseline (SSE2, NEON), two of AVX2 or one of AVX-512. The namespace differs a level, so no
// two of them meet in the linker; for the same reason these files use no templates of the standard
// library. Lane sums have one order at all levels; only the baseline rounds twice in fma().
#pragma once

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#if defined(__AVX512BF16__)
#define A2V_SIMD avx512bf16
#else
#define A2V_SIMD avx512
#endif
#define A2V_SIMD_AVX512 1
// GCC 12 takes the operand that its own unmasked intrinsics leave undefined for a mistake of ours.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__AVX2__) && defined(__FMA__)
#define A2V_SIMD avx2
#define A2V_SIMD_AVX2 1
#include <immintrin.h>
#else
#define A2V_SIMD scalar
#endif

#define A2V_INLINE __attribute__((always_inline)) inline

namespace a2v::A2V_SIMD {

constexpr int kLanes = 16;

#if defined(A2V_SIMD_AVX512)

struct V16 {
  __m512 x;
};
struct M16 {
  __mmask16 x;
};

A2V_INLINE V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
A2V_INLINE void store(float* p, V16 a) { _mm512_storeu_ps(p, a.x); }
A2V_INLINE V16 set1(float a) { return {_mm512_set1_ps(a)}; }
A2V_INLINE V16 operator+(V16 a, V16 b) { return {_mm512_add_ps(a.x, b.x)}; }
A2V_INLINE V16 operator-(V16 a, V16 b) { return {_mm512_sub_ps(a.x, b.x)}; }
A2V_INLINE V16 operator*(V16 a, V16 b) { return {_mm512_mul_ps(a.x, b.x)}; }
A2V_INLINE V16 operator/(V16 a, V16 b) { return {_mm512_div_ps(a.x, b.x)}; }
A2V_INLINE V16 fma(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
// The second argument where either is not a number, as the instruction has it.
A2V_INLINE V16 max(V16 a, V16 b) { return {_mm512_max_ps(a.x, b.x)}; }
A2V_INLINE V16 min(V16 a, V16 b) { return {_mm512_min_ps(a.x, b.x)}; }
A2V_INLINE V16 sqrt(V16 a) { return {_mm512_sqrt_ps(a.x)}; }
A2V_INLINE M16 operator>(V16 a, V16 b) { return {_mm512_cmp_ps_mask(a.x, b.x, _CMP_GT_OQ)}; }
A2V_INLINE M16 operator<(V16 a, V16 b) { return {_mm512_cmp_ps_mask(a.x, b.x, _CMP_LT_OQ)}; }
// Also where either is not a number.
A2V_INLINE M16 operator!=(V16 a, V16 b) { return {_mm512_cmp_ps_mask(a.x, b.x, _CMP_NEQ_UQ)}; }
A2V_INLINE V16 select(M16 m, V16 yes, V16 no) { return {_mm512_mask_mov_ps(no.x, m.x, yes.x)}; }
A2V_INLINE std::uint32_t bits(M16 m) { return m.x; }
A2V_INLINE M16 mask_from(std::uint32_t bits) { return {static_cast<__mmask16>(bits)}; }

// 2^n of whole numbers n in [-126, 127].
A2V_INLINE V16 power_of_two(V16 n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.x), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}

// a = m 2^e of positive normal numbers, m in [0.5, 1).
A2V_INLINE void split(V16 a, V16* m, V16* e) {
  const __m512i word = _mm512_castps_si512(a.x);
  e->x = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(word, 23), _mm512_set1_epi32(126)));
  const __m512i fraction = _mm512_and_si512(word, _mm512_set1_epi32(0x007fffff));
  m->x = _mm512_castsi512_ps(_mm512_or_si512(fraction, _mm512_set1_epi32(0x3f000000)));
}

A2V_INLINE __m256 halves_sum(V16 a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a.x), _mm512_extractf32x8_ps(a.x, 1));
}
A2V_INLINE __m256 halves_max(V16 a) {
  return _mm256_max_ps(_mm512_castps512_ps256(a.x), _mm512_extractf32x8_ps(a.x, 1));
}

#elif defined(A2V_SIMD_AVX2)

struct V16 {
  __m256 lo, hi;
};
struct M16 {
  __m256 lo, hi;
};

A2V_INLINE V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
A2V_INLINE void store(float* p, V16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
A2V_INLINE V16 set1(float a) {
  const __m256 x = _mm256_set1_ps(a);
  return {x, x};
}
A2V_INLINE V16 operator+(V16 a, V16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
A2V_INLINE V16 operator-(V16 a, V16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
A2V_INLINE V16 operator*(V16 a, V16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
A2V_INLINE V16 operator/(V16 a, V16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
A2V_INLINE V16 fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// The second argument where either is not a number, as the instruction has it.
A2V_INLINE V16 max(V16 a, V16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
A2V_INLINE V16 min(V16 a, V16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
A2V_INLINE V16 sqrt(V16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
A2V_INLINE M16 operator>(V16 a, V16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)};
}
A2V_INLINE M16 operator<(V16 a, V16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
A2V_INLINE M16 operator!=(V16 a, V16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_NEQ_UQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_NEQ_UQ)};
}
A2V_INLINE V16 select(M16 m, V16 yes, V16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
A2V_INLINE std::uint32_t bits(M16 m) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(m.lo)) |
         static_cast<std::uint32_t>(_mm256_movemask_ps(m.hi)) << 8;
}
A2V_INLINE M16 mask_from(std::uint32_t bits) {
  const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
  const __m256i lo = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i hi = _mm256_slli_epi32(lo, 8);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lo), lo)),
          _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, hi), hi))};
}

A2V_INLINE __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

// 2^n of whole numbers n in [-126, 127].
A2V_INLINE V16 power_of_two(V16 n) { return {power_of_two(n.lo), power_of_two(n.hi)}; }

A2V_INLINE void split(__m256 a, __m256* m, __m256* e) {
  const __m256i word = _mm256_castps_si256(a);
  *e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(word, 23), _mm256_set1_epi32(126)));
  const __m256i fraction = _mm256_and_si256(word, _mm256_set1_epi32(0x007fffff));
  *m = _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f000000)));
}

// a = m 2^e of positive normal numbers, m in [0.5, 1).
A2V_INLINE void split(V16 a, V16* m, V16* e) {
  split(a.lo, &m->lo, &e->lo);
  split(a.hi, &m->hi, &e->hi);
}

A2V_INLINE __m256 halves_sum(V16 a) { return _mm256_add_ps(a.lo, a.hi); }
A2V_INLINE __m256 halves_max(V16 a) { return _mm256_max_ps(a.lo, a.hi); }

#else  // the baseline, in the vector extension that GCC and Clang share

using F4 = float __attribute__((vector_size(16)));
using I4 = std::int32_t __attribute__((vector_size(16)));

struct V16 {
  F4 x[4];
};
struct M16 {
  I4 x[4];
};

template <class Function>
A2V_INLINE V16 each(Function function) {
  return {{function(0), function(1), function(2), function(3)}};
}

A2V_INLINE V16 load(const float* p) {
  V16 a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
A2V_INLINE void store(float* p, V16 a) { __builtin_memcpy(p, &a, sizeof a); }
A2V_INLINE V16 set1(float a) {
  return each([&](int) { return F4{a, a, a, a}; });
}
A2V_INLINE V16 operator+(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] + b.x[q]; });
}
A2V_INLINE V16 operator-(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] - b.x[q]; });
}
A2V_INLINE V16 operator*(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] * b.x[q]; });
}
A2V_INLINE V16 operator/(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] / b.x[q]; });
}
A2V_INLINE V16 fma(V16 a, V16 b, V16 c) { return a * b + c; }
// The second argument where either is not a number, as x86 has it.
A2V_INLINE V16 max(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] > b.x[q] ? a.x[q] : b.x[q]; });
}
A2V_INLINE V16 min(V16 a, V16 b) {
  return each([&](int q) { return a.x[q] < b.x[q] ? a.x[q] : b.x[q]; });
}
A2V_INLINE V16 sqrt(V16 a) {
  return each([&](int q) {
    return F4{__builtin_sqrtf(a.x[q][0]), __builtin_sqrtf(a.x[q][1]), __builtin_sqrtf(a.x[q][2]),
              __builtin_sqrtf(a.x[q][3])};
  });
}
A2V_INLINE M16 operator>(V16 a, V16 b) {
  return {{a.x[0] > b.x[0], a.x[1] > b.x[1], a.x[2] > b.x[2], a.x[3] > b.x[3]}};
}
A2V_INLINE M16 operator<(V16 a, V16 b) { return b > a; }
A2V_INLINE M16 operator!=(V16 a, V16 b) {
  return {{a.x[0] != b.x[0], a.x[1] != b.x[1], a.x[2] != b.x[2], a.x[3] != b.x[3]}};
}
A2V_INLINE V16 select(M16 m, V16 yes, V16 no) {
  return each([&](int q) { return m.x[q] ? yes.x[q] : no.x[q]; });
}
A2V_INLINE std::uint32_t bits(M16 m) {
  std::uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    result |= static_cast<std::uint32_t>(m.x[lane / 4][lane % 4] & 1) << lane;
  }
  return result;
}
A2V_INLINE M16 mask_from(std::uint32_t bits) {
  M16 m;
  for (int lane = 0; lane < kLanes; ++lane) {
    m.x[lane / 4][lane % 4] = -static_cast<std::int32_t>(bits >> lane & 1U);
  }
  return m;
}

// 2^n of whole numbers n in [-126, 127].
A2V_INLINE V16 power_of_two(V16 n) {
  return each([&](int q) {
    const I4 word = (__builtin_convertvector(n.x[q], I4) + 127) << 23;
    return reinterpret_cast<F4>(word);
  });
}

// a = m 2^e of positive normal numbers, m in [0.5, 1).
A2V_INLINE void split(V16 a, V16* m, V16* e) {
  for (int q = 0; q < 4; ++q) {
    const I4 word = reinterpret_cast<I4>(a.x[q]);
    e->x[q] = __builtin_convertvector((word >> 23) - 126, F4);
    const I4 fraction = (word & 0x007fffff) | 0x3f000000;
    m->x[q] = reinterpret_cast<F4>(fraction);
  }
}

#endif

A2V_INLINE V16 zero() { return set1(0.0F); }

// A constant of the type of its first argument, for functions of lanes and of floats alike.
A2V_INLINE V16 constant_like(V16, float value) { return set1(value); }

// Lanes i and i + 8, then i + 4, i + 2, i + 1: the same bits at every level.
A2V_INLINE float sum(V16 a) {
#if defined(A2V_SIMD_AVX512) || defined(A2V_SIMD_AVX2)
  const __m256 s8 = halves_sum(a);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
#else
  const F4 s4 = (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]);
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
#endif
}

A2V_INLINE float largest(V16 a) {
#if defined(A2V_SIMD_AVX512) || defined(A2V_SIMD_AVX2)
  const __m256 s8 = halves_max(a);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
#else
  float result = a.x[0][0];
  for (int lane = 1; lane < kLanes; ++lane) {
    const float value = a.x[lane / 4][lane % 4];
    result = result > value ? result : value;
  }
  return result;
#endif
}

// The first `count` (0..16) lanes of `p`, zeros behind; reads nothing beyond them.
A2V_INLINE V16 load_first(const float* p, int count) {
  float lane[kLanes] = {};
  for (int i = 0; i < count; ++i) {
    lane[i] = p[i];
  }
  return load(lane);
}

A2V_INLINE void store_first(float* p, V16 a, int count) {
  float lane[kLanes];
  store(lane, a);
  for (int i = 0; i < count; ++i) {
    p[i] = lane[i];
  }
}

// ReLU that hands on what is not a number.
A2V_INLINE V16 relu(V16 a) { return max(zero(), a); }

A2V_INLINE V16 absolute(V16 a) { return max(a, zero() - a); }

// e^a, relative error below 2e-7 (Cephes expf); 0 below -87.3, infinity above
// 88.7, no number where a is none.
A2V_INLINE V16 exp(V16 a) {
  const V16 x = min(set1(88.8F), max(set1(-104.0F), a));
  const V16 magic = set1(12582912.0F);  // 1.5 * 2^23: adding it rounds to a whole number
  const V16 n = fma(x, set1(1.44269504088896341F), magic) - magic;
  V16 r = fma(n, set1(-0.693359375F), x);
  r = fma(n, set1(2.12194440e-4F), r);
  V16 p = fma(set1(1.9875691500e-4F), r, set1(1.3981999507e-3F));
  p = fma(p, r, set1(8.3334519073e-3F));
  p = fma(p, r, set1(4.1665795894e-2F));
  p = fma(p, r, set1(1.6666665459e-1F));
  p = fma(p, r, set1(5.0000001201e-1F));
  p = fma(p, r * r, r) + set1(1.0F);
  // In two factors, so that results near the overflow keep a normal exponent.
  const V16 half = fma(n, set1(0.5F), magic) - magic;
  V16 y = p * power_of_two(half) * power_of_two(n - half);
  y = select(a < set1(-87.33654F), zero(), y);
  return select(a > set1(88.72283F), set1(__builtin_inff()), y);
}

// Natural logarithm of positive normal numbers, relative error below 2e-7 (Cephes logf); -87.3
// at and below the smallest normal number, zero and less included; no number where a is none.
A2V_INLINE V16 log(V16 a) {
  V16 m;
  V16 e;
  split(max(set1(1.17549435e-38F), a), &m, &e);
  const M16 low = m < set1(0.707106781186547524F);
  e = e - select(low, set1(1.0F), zero());
  const V16 f = select(low, m + m, m) - set1(1.0F);
  const V16 z = f * f;
  V16 p = fma(set1(7.0376836292e-2F), f, set1(-1.1514610310e-1F));
  p = fma(p, f, set1(1.1676998740e-1F));
  p = fma(p, f, set1(-1.2420140846e-1F));
  p = fma(p, f, set1(1.4249322787e-1F));
  p = fma(p, f, set1(-1.6668057665e-1F));
  p = fma(p, f, set1(2.0000714765e-1F));
  p = fma(p, f, set1(-2.4999993993e-1F));
  p = fma(p, f, set1(3.3333331174e-1F));
  V16 y = p * f * z;
  y = fma(e, set1(-2.12194440e-4F), y);
  y = fma(z, set1(-0.5F), y);
  return fma(e, set1(0.693359375F), f + y) + (a - a);
}

// log(1 + a) of a in (-1, 1].
A2V_INLINE V16 log1p(V16 a) {
  // What rounding 1 + a loses is given back to first order.
  const V16 sum_of = set1(1.0F) + a;
  return log(sum_of) + (a - (sum_of - set1(1.0F))) / sum_of;
}

A2V_INLINE V16 sigmoid(V16 a) { return set1(1.0F) / (set1(1.0F) + exp(zero() - a)); }

}  // namespace a2v::A2V_SIMD

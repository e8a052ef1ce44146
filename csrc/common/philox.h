// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: the same bits on any CPU, any GPU and any number of threads.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Four words
// are a pure function of (seed, step, stream, block); element e of a step is lane e % 4 of block
// e / 4. Normals come from Box-Muller over polynomials of our own, because no two vendors' logf and
// cosf round alike. Every operation below is a single IEEE operation: compile with
// -ffp-contract=off; on the device the _rn intrinsics forbid contraction.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define A2V_HOST_DEVICE __host__ __device__
#else
#define A2V_HOST_DEVICE
#endif

namespace a2v {

// What the numbers of one step are drawn for; different streams never meet.
enum class PhiloxStream : std::uint32_t {
  kNoise = 0,
  kDropout = 1,
  kDngoParameters = 2,
  kDngoShuffle = 3,
};

struct PhiloxWords {
  std::uint32_t word[4];
};

struct PhiloxNormals {
  float value[4];
};

namespace philox_detail {

A2V_HOST_DEVICE inline float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

A2V_HOST_DEVICE inline float add(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

A2V_HOST_DEVICE inline float square_root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return std::sqrt(a);
#endif
}

A2V_HOST_DEVICE inline float as_float(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

A2V_HOST_DEVICE inline std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Natural logarithm of a normal float in (0, 1]; relative error below 2e-7 (Cephes logf).
A2V_HOST_DEVICE inline float log_of(float x) {
  const std::uint32_t bits = as_bits(x);
  int exponent = static_cast<int>(bits >> 23) - 126;
  float m = as_float((bits & 0x007fffffU) | 0x3f000000U);  // [0.5, 1)
  if (m < 0.70710678F) {
    m = add(m, m);
    exponent -= 1;
  }
  const float f = add(m, -1.0F);
  const float z = multiply(f, f);
  float p = 7.0376836292e-2F;
  p = add(multiply(p, f), -1.1514610310e-1F);
  p = add(multiply(p, f), 1.1676998740e-1F);
  p = add(multiply(p, f), -1.2420140846e-1F);
  p = add(multiply(p, f), 1.4249322787e-1F);
  p = add(multiply(p, f), -1.6668057665e-1F);
  p = add(multiply(p, f), 2.0000714765e-1F);
  p = add(multiply(p, f), -2.4999993993e-1F);
  p = add(multiply(p, f), 3.3333331174e-1F);
  const float e = static_cast<float>(exponent);
  float y = multiply(multiply(p, f), z);
  y = add(y, multiply(e, -2.12194440e-4F));
  y = add(y, multiply(z, -0.5F));
  return add(add(f, y), multiply(e, 0.693359375F));
}

// cos and sin of an angle uniform on the circle, 2 pi (word >> 7) / 2^25 - pi/4 up to half a unit:
// by quadrant, and a polynomial on [-pi/4, pi/4].
A2V_HOST_DEVICE inline void circle(std::uint32_t word, float* cosine, float* sine) {
  const std::uint32_t quadrant = word >> 30;
  const auto within = static_cast<float>((word & 0x3fffffffU) >> 7);  // 23 bits, exact
  const float t = add(multiply(add(within, 0.5F), 1.1920928955078125e-7F), -0.5F);
  const float a = multiply(t, 1.57079632679F);
  const float z = multiply(a, a);
  float s = add(multiply(-1.9515295891e-4F, z), 8.3321608736e-3F);
  s = add(multiply(s, z), -1.6666654611e-1F);
  s = add(multiply(multiply(s, z), a), a);
  float c = add(multiply(2.443315711809948e-5F, z), -1.388731625493765e-3F);
  c = add(multiply(c, z), 4.166664568298827e-2F);
  c = add(add(multiply(multiply(c, z), z), multiply(z, -0.5F)), 1.0F);
  const float swapped_c = (quadrant & 1U) != 0 ? s : c;
  const float swapped_s = (quadrant & 1U) != 0 ? c : s;
  *cosine = quadrant == 1 || quadrant == 2 ? -swapped_c : swapped_c;
  *sine = quadrant >= 2 ? -swapped_s : swapped_s;
}

}  // namespace philox_detail

// The four words of block `block` of `stream` at `step`.
A2V_HOST_DEVICE inline PhiloxWords philox(std::uint64_t seed, std::uint64_t step,
                                          PhiloxStream stream, std::uint32_t block) {
  std::uint32_t c0 = block;
  std::uint32_t c1 = static_cast<std::uint32_t>(step);
  std::uint32_t c2 = static_cast<std::uint32_t>(step >> 32);
  std::uint32_t c3 = static_cast<std::uint32_t>(stream);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

// Four standard normals from four words: pairs (radius from words 0 and 2, angle from 1 and 3).
// |value| <= 5.77, because a radius has 24 bits.
A2V_HOST_DEVICE inline PhiloxNormals philox_normals(const PhiloxWords& words) {
  PhiloxNormals normals;
  for (int pair = 0; pair < 2; ++pair) {
    const auto high = static_cast<float>(words.word[2 * pair] >> 9);  // 23 bits, exact
    const float u = philox_detail::multiply(philox_detail::add(high, 0.5F), 1.1920928955078125e-7F);
    const float radius =
        philox_detail::square_root(philox_detail::multiply(-2.0F, philox_detail::log_of(u)));
    float cosine;
    float sine;
    philox_detail::circle(words.word[2 * pair + 1], &cosine, &sine);
    normals.value[2 * pair] = philox_detail::multiply(radius, cosine);
    normals.value[2 * pair + 1] = philox_detail::multiply(radius, sine);
  }
  return normals;
}

// Words at or above this threshold keep their element, for a dropout of `rate` in [0, 1).
A2V_HOST_DEVICE inline std::uint32_t dropout_threshold(double rate) {
  return static_cast<std::uint32_t>(rate * 4294967296.0);
}

}  // namespace a2v

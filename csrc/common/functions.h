// SPDX-License-Identifier: Apache-2.0
// The functions that surrogates evaluate millions of times: tanh and expected improvement, written
// once for sixteen lanes of a CPU (V16 of simd.h) and for a float of CUDA (dngo/scalar.cuh).
//
// V needs arithmetic, `>`, and fma, exp, log, min, max, select, constant_like. The polynomials are
// fits of our own in the relative maximum norm (iteratively reweighted least squares against
// 50-digit values). Errors are those of float32 evaluation; tests/native/dngo_test.cpp holds them.
#pragma once

#if defined(__CUDACC__)
#define A2V_LANE_FUNCTION __host__ __device__ inline
#else
#define A2V_LANE_FUNCTION inline
#endif

namespace a2v {

template <class V>
A2V_LANE_FUNCTION V horner(V x, float last) {
  return constant_like(x, last);
}

// first + x (second + x (...)).
template <class V, class... Rest>
A2V_LANE_FUNCTION V horner(V x, float first, Rest... rest) {
  return fma(x, horner(x, rest...), constant_like(x, first));
}

// Relative error below 4e-7; not a number where x is none. Beyond 9 tanh rounds to 1.
template <class V>
A2V_LANE_FUNCTION V tanh_of(V x) {
  const V y = min(constant_like(x, 9.0F), max(constant_like(x, -9.0F), x));
  const V z = y * y;
  const V upper = horner(z, 0.9999999403953552F, 0.12919221818447113F, 0.002920754486694932F,
                         9.267359928344376e-06F, -1.2780277169088888e-08F, 1.8254885450486036e-11F);
  const V lower =
      horner(z, 1.0F, 0.46252503991127014F, 0.02376313880085945F, 0.0002280992193846032F);
  return y * upper / lower;
}

// Of the standard normal at x >= 0: Mills' ratio R = (1 - cdf) / density, and 1 - x R, which decay
// like 1/x and 1/x^2. Both are polynomials in w = x / (x + 3); relative error below 5e-7 and 2e-6.
template <class V>
A2V_LANE_FUNCTION V mills_ratio(V x) {
  const V s = constant_like(x, 1.0F) / (x + constant_like(x, 3.0F));
  return horner(x * s, 1.2533140182495117F, -1.746666669845581F, 0.8926371335983276F,
                0.18019987642765045F, -0.2615622878074646F, 0.05770258232951164F,
                -0.2963711619377136F, 0.4603655934333801F, -0.2574307322502136F,
                0.05114493519067764F) *
         (constant_like(x, 3.0F) * s);
}

template <class V>
A2V_LANE_FUNCTION V improvement_ratio(V x) {
  const V s = constant_like(x, 1.0F) / (x + constant_like(x, 3.0F));
  const V t = constant_like(x, 3.0F) * s;
  return horner(x * s, 0.9999998807907104F, -1.759921908378601F, 0.7196282744407654F,
                0.5260988473892212F, -0.22403274476528168F, -0.21134039759635925F,
                -0.026472637429833412F, -0.18195514380931854F, 0.6346058249473572F,
                -0.48364850878715515F, 0.11814956367015839F) *
         t * t;
}

// log of the standard normal density.
template <class V>
A2V_LANE_FUNCTION V log_density(V u) {
  return fma(constant_like(u, -0.5F) * u, u, constant_like(u, -0.91893853320467274F));
}

// log E[max(y - target, 0)] of y ~ N(mean, deviation^2). With u = (mean - target) / deviation the
// expectation is deviation (max(u, 0) + density(u) (1 - |u| R(|u|))): a sum of positive terms,
// whose logarithm stays finite where the expectation itself underflows (u < -13).
template <class V>
A2V_LANE_FUNCTION V log_improvement(V mean, V deviation, V target) {
  const V nothing = constant_like(mean, 0.0F);
  const V u = (mean - target) / deviation;
  const V x = max(u, nothing - u);
  const V ratio = improvement_ratio(x);
  const V density = log_density(u);
  const auto above = u > nothing;
  const V factor = select(above, fma(exp(density), ratio, x), ratio);
  return log(deviation * factor) + select(above, nothing, density);
}

// The released code's expected improvement: its float32 formula with the predictive variance where
// the standard deviation belongs. Cancels for u << 0, down to zero and below, as there.
template <class V>
A2V_LANE_FUNCTION V released_improvement(V mean, V variance, V target) {
  const V nothing = constant_like(mean, 0.0F);
  const V one = constant_like(mean, 1.0F);
  const V half = constant_like(mean, 0.5F);
  const V u = (mean - target) / variance;
  const V x = max(u, nothing - u);
  const V density = exp(log_density(u));
  const V tail = density * mills_ratio(x);
  const V erf = one - (tail + tail);  // of x / sqrt(2), rounded as the released code has it
  const V cdf = half * (one + select(u > nothing, erf, nothing - erf));
  return variance * (density + u * cdf);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// What functions.h needs, for a float of the GPU. These overloads hide CUDA's of the same names in
// namespace a2v, so a file that includes this one computes in float.
#pragma once

#include <cmath>

#include "common/device.cuh"

namespace a2v {

__device__ inline float constant_like(float, float value) { return value; }
__device__ inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline float exp(float a) { return expf(a); }
__device__ inline float log(float a) { return logf(a); }
// The second argument where either is not a number, as on the CPU.
__device__ inline float max(float a, float b) { return a > b ? a : b; }
__device__ inline float min(float a, float b) { return a < b ? a : b; }
__device__ inline float select(bool condition, float yes, float no) { return condition ? yes : no; }

}  // namespace a2v

#include "common/functions.h"

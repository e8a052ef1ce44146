// SPDX-License-Identifier: Apache-2.0
// gin_aggregate for AVX2: see gin_aggregate_kernel.h.

#include "gin_aggregate/gin_aggregate_kernel.h"

namespace a2v {

template <class T>
GinAggregateKernels<T> gin_aggregate_avx2() {
  return {.forward = &avx2::forward<T>, .backward = &avx2::backward<T>};
}

template GinAggregateKernels<float> gin_aggregate_avx2();
template GinAggregateKernels<double> gin_aggregate_avx2();

}  // namespace a2v

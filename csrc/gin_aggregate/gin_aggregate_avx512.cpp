// SPDX-License-Identifier: Apache-2.0
// gin_aggregate for AVX-512: see gin_aggregate_kernel.h.

#include "gin_aggregate/gin_aggregate_kernel.h"

namespace a2v {

template <class T>
GinAggregateKernels<T> gin_aggregate_avx512() {
  return {.forward = &avx512::forward<T>, .backward = &avx512::backward<T>};
}

template GinAggregateKernels<float> gin_aggregate_avx512();
template GinAggregateKernels<double> gin_aggregate_avx512();

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_aggregate for any processor: see gin_aggregate_kernel.h.

#include "gin_aggregate/gin_aggregate_kernel.h"

namespace a2v {

template <class T>
GinAggregateKernels<T> gin_aggregate_scalar() {
  return {.forward = &scalar::forward<T>, .backward = &scalar::backward<T>};
}

template GinAggregateKernels<float> gin_aggregate_scalar();
template GinAggregateKernels<double> gin_aggregate_scalar();

}  // namespace a2v

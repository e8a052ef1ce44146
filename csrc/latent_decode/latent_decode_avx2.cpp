// SPDX-License-Identifier: Apache-2.0
// latent_decode for AVX2: see latent_decode_kernel.h.

#include "latent_decode/latent_decode_kernel.h"

namespace a2v {

template <class T>
LatentDecodeKernels<T> latent_decode_avx2() {
  return {.forward = &avx2::forward<T>, .backward = &avx2::backward<T>, .loss = &avx2::loss<T>};
}

template LatentDecodeKernels<float> latent_decode_avx2();
template LatentDecodeKernels<double> latent_decode_avx2();

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// latent_decode for AVX-512: see latent_decode_kernel.h.

#include "latent_decode/latent_decode_kernel.h"

namespace a2v {

template <class T>
LatentDecodeKernels<T> latent_decode_avx512() {
  return {
      .forward = &avx512::forward<T>, .backward = &avx512::backward<T>, .loss = &avx512::loss<T>};
}

template LatentDecodeKernels<float> latent_decode_avx512();
template LatentDecodeKernels<double> latent_decode_avx512();

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// latent_decode for any processor: see latent_decode_kernel.h.

#include "latent_decode/latent_decode_kernel.h"

namespace a2v {

template <class T>
LatentDecodeKernels<T> latent_decode_scalar() {
  return {
      .forward = &scalar::forward<T>, .backward = &scalar::backward<T>, .loss = &scalar::loss<T>};
}

template LatentDecodeKernels<float> latent_decode_scalar();
template LatentDecodeKernels<double> latent_decode_scalar();

}  // namespace a2v

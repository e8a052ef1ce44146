// SPDX-License-Identifier: Apache-2.0
// nearest_latent_kernel.h at the level that this file is compiled for: avx2.

#include "nearest_latent/nearest_latent_kernel.h"

namespace a2v {

const LatentScan kLatentScanAvx2{avx2::nearest::seed, avx2::nearest::scan};

}  // namespace a2v

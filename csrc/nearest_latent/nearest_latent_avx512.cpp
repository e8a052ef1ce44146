// SPDX-License-Identifier: Apache-2.0
// nearest_latent_kernel.h at the level that this file is compiled for: avx512.

#include "nearest_latent/nearest_latent_kernel.h"

namespace a2v {

const LatentScan kLatentScanAvx512{avx512::nearest::seed, avx512::nearest::scan};

}  // namespace a2v

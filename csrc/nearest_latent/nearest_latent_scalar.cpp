// SPDX-License-Identifier: Apache-2.0
// nearest_latent_kernel.h at the level that this file is compiled for: scalar.

#include "nearest_latent/nearest_latent_kernel.h"

namespace a2v {

const LatentScan kLatentScanScalar{scalar::nearest::seed, scalar::nearest::scan};

}  // namespace a2v

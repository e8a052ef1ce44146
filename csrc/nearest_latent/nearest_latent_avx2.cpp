// SPDX-License-Identifier: Apache-2.0
// nearest_latent_kernel.h at the level that this file is compiled for: avx2.

#include "nearest_latent/nearest_latent_kernel.h"

namespace a2v {

void scan_latents_avx2(const LatentPoints& points, const LatentQuery* queries, LatentBest* best,
                       std::int64_t num_queries, std::int64_t first, std::int64_t last) {
  avx2::nearest::scan(points, queries, best, num_queries, first, last);
}

}  // namespace a2v

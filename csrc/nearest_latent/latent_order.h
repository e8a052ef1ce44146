// SPDX-License-Identifier: Apache-2.0
// An order of points in which neighbours stand together: the leaves of a k-d tree, left to right.
//
// A node of more than 32 places is cut where its left part is the largest 32 * 2^n that leaves a
// right part, across the dim in which its points vary most; so every aligned run of 2^n groups is
// one subtree, as the boxes of nearest_latent.h want it. Dims are judged and points compared by
// their 8-bit codes, and equal codes stay in order: integers throughout, so that the order does not
// depend on compiler or machine. A dim's variation is that of at most 64 places, evenly spread.
#pragma once

#include <cstdint>

namespace a2v {

// columns: codes [D, Q]. order: [Q], out. spare: [Q], scratch.
void order_latents(std::int64_t num_points, int dim, const std::uint8_t* columns,
                   std::int32_t* order, std::int32_t* spare);

}  // namespace a2v

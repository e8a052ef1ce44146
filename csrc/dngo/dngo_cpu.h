// SPDX-License-Identifier: Apache-2.0
// The CPU kernels of dngo: one declaration an instruction set, workspaces in floats. A call works
// on one seed and one thread; what it writes does not depend on how the work is split.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dngo/dngo.h"

namespace a2v {

// Floats of workspace that a fit, an acquire call takes. Lanes are 16 at every level.
constexpr std::ptrdiff_t dngo_fit_floats(const DngoLayout& layout) {
  const std::ptrdiff_t panels = (layout.num_hidden + 15) / 16;
  const std::ptrdiff_t batch = kMaxDngoBatch + 4;
  return panels * 16 * (3 * (layout.num_inputs + 2) + batch) + batch * layout.num_inputs;
}
constexpr std::ptrdiff_t dngo_acquire_floats(const DngoLayout& layout) {
  const std::ptrdiff_t hidden = layout.num_hidden + 16;  // padded to the rows of a block
  return hidden * (layout.num_inputs + 2 + hidden) + 32 * (layout.num_inputs + hidden);
}

void dngo_draw(const DngoDrawParams& params, std::int64_t seed);
void dngo_evidence(const DngoEvidenceParams& params, std::int64_t seed);

#define A2V_DNGO_KERNELS                                                                        \
  void dngo_fit(const DngoFitParams& params, std::int64_t seed, float* workspace);              \
  /* Packs one seed's network and posterior; scores of candidates first .. last - 1 follow. */  \
  void dngo_acquire_pack(const DngoAcquireParams& params, std::int64_t seed, float* workspace); \
  void dngo_acquire(const DngoAcquireParams& params, std::int64_t seed, std::int64_t first,     \
                    std::int64_t last, float* workspace, float* scores);

namespace scalar {
A2V_DNGO_KERNELS
}
namespace avx2 {
A2V_DNGO_KERNELS
}
namespace avx512 {
A2V_DNGO_KERNELS
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The parts of dngo that no instruction set makes faster: what is drawn, and the evidence, whose
// loops are short and in double.

#include <algorithm>
#include <vector>

#include "dngo/dngo_cpu.h"
#include "dngo/evidence.h"
#include "dngo/random.h"

namespace a2v {

void dngo_draw(const DngoDrawParams& params, std::int64_t seed) {
  const auto key = static_cast<std::uint64_t>(params.seed[seed]);
  const DngoLayout& layout = params.layout;
  const float hidden_bound = dngo_bound(layout.num_inputs);
  const float readout_bound = dngo_bound(layout.num_hidden);
  float* parameters = params.parameters + seed * layout.size();
  for (int element = 0; element < layout.size(); ++element) {
    parameters[element] = dngo_parameter(key, layout, element, hidden_bound, readout_bound);
  }
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(params.num_points));
  for (int epoch = 0; epoch < params.num_epochs; ++epoch) {
    for (int point = 0; point < params.num_points; ++point) {
      keys[static_cast<std::size_t>(point)] = dngo_shuffle_key(key, epoch, point);
    }
    std::sort(keys.begin(), keys.end());
    std::int32_t* order =
        params.order + (seed * params.num_epochs + epoch) * std::int64_t{params.num_points};
    std::transform(keys.begin(), keys.end(), order, [](std::uint64_t sorted) {
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(sorted));
    });
  }
}

void dngo_evidence(const DngoEvidenceParams& params, std::int64_t seed) {
  maximise_evidence(OneThread{}, params, seed, params.optimum + 2 * seed);
}

}  // namespace a2v

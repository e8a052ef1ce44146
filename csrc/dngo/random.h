// SPDX-License-Identifier: Apache-2.0
// What dngo draws, element by element: the same bits on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/philox.h"
#include "dngo/dngo.h"

namespace a2v {

// Bound of the uniform distribution that torch.nn.Linear starts from, for a layer of `inputs`.
inline float dngo_bound(int inputs) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(inputs)));
}

// Parameter `element` of the flat buffer, uniform in [-bound, bound): word w gives
// bound (floor(w / 2^8) 2^-23 - 1), of which all but the last product is exact.
A2V_HOST_DEVICE inline float dngo_parameter(std::uint64_t seed, const DngoLayout& layout,
                                            int element, float hidden_bound, float readout_bound) {
  const auto block = static_cast<std::uint32_t>(element / 4);
  const PhiloxWords words = philox(seed, 0, PhiloxStream::kDngoParameters, block);
  const auto high = static_cast<float>(words.word[element % 4] >> 8);
  const float unit =
      philox_detail::add(philox_detail::multiply(high, 1.1920928955078125e-7F), -1.0F);
  return philox_detail::multiply(unit, element < layout.readout() ? hidden_bound : readout_bound);
}

// The shuffle of an epoch sorts its points by this key, which is different for each point.
A2V_HOST_DEVICE inline std::uint64_t dngo_shuffle_key(std::uint64_t seed, int epoch, int point) {
  const auto block = static_cast<std::uint32_t>(point / 4);
  const PhiloxWords words =
      philox(seed, static_cast<std::uint64_t>(epoch), PhiloxStream::kDngoShuffle, block);
  return std::uint64_t{words.word[point % 4]} << 32 | static_cast<std::uint32_t>(point);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// Score and index of a candidate in one integer: the larger key is the better candidate. Ties go to
// the lowest index and no two keys are equal, so the best K are the same in whatever order and in
// whatever parts the candidates are looked at.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace a2v {

constexpr std::uint64_t kNoKey = 0;  // below every candidate's

// What is not a number ranks below everything else.
A2V_HOST_DEVICE inline std::uint64_t rank_key(float score, std::uint32_t index) {
  std::uint32_t ordered = 0;
  if (score == score) {
    const std::uint32_t bits = philox_detail::as_bits(score + 0.0F);  // one zero
    ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  }
  return std::uint64_t{ordered} << 32 | static_cast<std::uint32_t>(~index);
}

A2V_HOST_DEVICE inline std::int64_t key_index(std::uint64_t key) {
  return key == kNoKey ? -1 : static_cast<std::int64_t>(~static_cast<std::uint32_t>(key));
}

// -infinity for no candidate.
A2V_HOST_DEVICE inline float key_score(std::uint64_t key) {
  const auto ordered = static_cast<std::uint32_t>(key >> 32);
  if (key == kNoKey) {
    return philox_detail::as_float(0xff800000U);
  }
  if (ordered == 0) {
    return philox_detail::as_float(0x7fc00000U);
  }
  return philox_detail::as_float((ordered & 0x80000000U) != 0 ? ordered & 0x7fffffffU : ~ordered);
}

}  // namespace a2v

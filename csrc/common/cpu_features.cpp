// SPDX-License-Identifier: Apache-2.0
// See cpu_features.h. The compiler's built-in asks CPUID and the operating system (XGETBV) for us.

#include "common/cpu_features.h"

#include <array>
#include <cstdlib>
#include <string_view>

#include "common/check.h"

namespace a2v {
namespace {

constexpr std::array kLevels{SimdLevel::kScalar, SimdLevel::kAvx2, SimdLevel::kAvx512};

SimdLevel parse_level(std::string_view word) {
  for (const SimdLevel level : kLevels) {
    if (word == simd_level_name(level)) {
      return level;
    }
  }
  fail("A2V_SIMD: '", word, "' is not a level; use scalar, avx2 or avx512");
}

SimdLevel choose_level() {
  const char* wanted = std::getenv("A2V_SIMD");
  const SimdLevel detected = detected_simd_level();
  if (wanted == nullptr || *wanted == '\0') {
    return detected;
  }
  const SimdLevel level = parse_level(wanted);
  A2V_CHECK(level <= detected, "A2V_SIMD: this machine does not run ", wanted, "; unset it or use ",
            simd_level_name(detected));
  return level;
}

}  // namespace

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kAvx512:
      return "avx512";
    case SimdLevel::kAvx2:
      return "avx2";
    case SimdLevel::kScalar:
      break;
  }
  return "scalar";
}

SimdLevel detected_simd_level() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return SimdLevel::kScalar;
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? SimdLevel::kAvx512 : SimdLevel::kAvx2;
#else
  return SimdLevel::kScalar;
#endif
}

SimdLevel simd_level() {
  static const SimdLevel level = choose_level();
  return level;
}

}  // namespace a2v

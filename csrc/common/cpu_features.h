// SPDX-License-Identifier: Apache-2.0
// Which instruction set the kernels of this process use, decided once.
#pragma once

namespace a2v {

// Ordered: a level includes the ones before it.
enum class SimdLevel { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

// "scalar", "avx2" or "avx512": the words that A2V_SIMD takes and `arch2vec-fast doctor` prints.
const char* simd_level_name(SimdLevel level);

// The best level this processor and operating system run, whatever A2V_SIMD says.
SimdLevel detected_simd_level();

// The level in use: $A2V_SIMD if set, else the detected one. Throws std::invalid_argument for an
// unknown word and for a level above the detected one, because running it would end in an illegal
// instruction.
SimdLevel simd_level();

}  // namespace a2v

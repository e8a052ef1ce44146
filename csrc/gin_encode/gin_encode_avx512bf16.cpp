// SPDX-License-Identifier: Apache-2.0
// gin_encode's kernels with bfloat16 products, for processors that have the instruction.

#include "gin_encode/gin_encode_bf16.h"

namespace a2v::A2V_SIMD {

const EncodeKernels kEncodeKernels{pack_pairs, encode_layer<Bfloat16>, encode_readout};

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// gin_encode's kernels in the instruction set of this file's name.

#include "gin_encode/gin_encode_kernel.h"

namespace a2v::A2V_SIMD {

const EncodeKernels kEncodeKernels{pack_transposed, encode_layer<Float32>, encode_readout};

}  // namespace a2v::A2V_SIMD

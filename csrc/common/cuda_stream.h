// SPDX-License-Identifier: Apache-2.0
// A CUDA stream's type without CUDA's headers, for the declarations of kernels' launchers: the
// operators above them are compiled where no CUDA header is.
#pragma once

struct CUstream_st;

namespace a2v {

// The same type as cudaStream_t.
using CudaStream = CUstream_st*;

}  // namespace a2v

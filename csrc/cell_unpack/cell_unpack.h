// SPDX-License-Identifier: Apache-2.0
// unpack_cells: packed cells to the dense float32 matrices that models read. The template of a
// small op: parameters and kernel declared here without torch, one file an instruction set and
// one for the GPU, the operators in cell_unpack_op.cpp and cell_unpack_cuda_op.cpp.
//
//   adjacency[b, x, y] = bit x + y(y-1)/2 of cell b for x < y, else 0
//   node_ops[b, v, f]  = 1 where field v of cell b holds f + 1, else 0 (an absent node holds 0)
#pragma once

#include <cstdint>

#include "cells/packed_cell.h"
#include "common/cuda_stream.h"

namespace a2v {

// Contiguous arrays; the caller owns and sizes them. B = num_cells, N, F and W come from the
// layout.
struct CellUnpackParams {
  CellLayout layout;
  std::int64_t num_cells;
  const std::int64_t* codes;  // [B, W]
  float* adjacency;           // [B, N, N]
  float* node_ops;            // [B, N, F]
};

// Unpacks cells first .. last-1 and returns `last`, or stops at the first cell that is no cell of
// the layout and returns its index. Every output of the cells before it is written.
std::int64_t cell_unpack_scalar(const CellUnpackParams& params, std::int64_t first,
                                std::int64_t last);

// The same on the GPU, in stream order and without waiting; arrays in device memory. Every output
// of a cell that is no cell of the layout is NaN.
void cell_unpack_cuda(const CellUnpackParams& params, CudaStream stream);

}  // namespace a2v

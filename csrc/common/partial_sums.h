// SPDX-License-Identifier: Apache-2.0
// Sums over cells on the GPU that are the same bits on every GPU.
//
// Cells are dealt out to rows by their number alone: row r takes cells r, r + rows, r + 2 rows, ...
// Whoever owns a row (a block, a warp) adds its cells in order; sum_partials then adds the rows in
// a fixed order.
#pragma once

#include <cstdint>

#include "common/cuda_stream.h"

namespace a2v {

constexpr std::int64_t partial_rows(std::int64_t num_cells) {
  return num_cells < 4096 ? (num_cells + 3) / 4 : 1024;
}

// out [width] = partial [rows, stride], summed over rows, columns first .. first + width - 1.
template <class T>
void sum_partials(const double* partial, std::int64_t rows, std::int64_t stride, std::int64_t first,
                  std::int64_t width, T* out, CudaStream stream);

}  // namespace a2v

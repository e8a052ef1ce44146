// SPDX-License-Identifier: Apache-2.0
// See cell_unpack.h. Bound by the stores of the outputs (4 N (N + F) bytes a cell, 336 for
// NAS-Bench-101) and not by the bit twiddling, which is why there is no version for wider
// registers.

#include <algorithm>
#include <bit>

#include "cell_unpack/cell_unpack.h"

namespace a2v {
namespace {

void write_cell(const CellLayout& layout, const Cell& cell, float* adjacency, float* node_ops) {
  std::fill_n(adjacency, layout.num_nodes * layout.num_nodes, 0.0F);
  std::fill_n(node_ops, layout.num_nodes * layout.num_op_types, 0.0F);
  for (int y = 0; y < layout.num_nodes; ++y) {
    for (std::uint32_t sources = cell.preds[y]; sources != 0; sources &= sources - 1) {
      adjacency[std::countr_zero(sources) * layout.num_nodes + y] = 1.0F;
    }
    if (cell.label[y] != 0) {
      node_ops[y * layout.num_op_types + cell.label[y] - 1] = 1.0F;
    }
  }
}

}  // namespace

std::int64_t cell_unpack_scalar(const CellUnpackParams& params, std::int64_t first,
                                std::int64_t last) {
  const CellLayout& layout = params.layout;
  // int64 and uint64 may alias; torch has no full support for unsigned 64-bit tensors.
  const auto* codes = reinterpret_cast<const std::uint64_t*>(params.codes);
  for (std::int64_t b = first; b < last; ++b) {
    const std::uint64_t* words = codes + b * layout.words();
    if (!is_well_formed(layout, words)) {
      return b;
    }
    write_cell(layout, unpack_cell(layout, words),
               params.adjacency + b * layout.num_nodes * layout.num_nodes,
               params.node_ops + b * layout.num_nodes * layout.num_op_types);
  }
  return last;
}

}  // namespace a2v

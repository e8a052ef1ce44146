// SPDX-License-Identifier: Apache-2.0
// What the CPU's and the GPU's operator unpack_cells share: checks, allocation, the kernel's
// parameters. One copy, so that both refuse the same in the same words.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "cell_unpack/cell_unpack.h"
#include "common/check.h"

namespace a2v {

struct CellUnpackCall {
  torch::stable::Tensor codes;  // contiguous
  torch::stable::Tensor adjacency;
  torch::stable::Tensor node_ops;
  CellUnpackParams params;
};

// The public function has worded these checks for its users; here they keep the raw operator from
// reading out of bounds.
inline CellLayout check_cell_unpack(const torch::stable::Tensor& codes, std::int64_t num_nodes,
                                    std::int64_t num_op_types) {
  A2V_CHECK(num_nodes >= 2 && num_nodes <= kMaxNodes, "num_nodes: ", num_nodes, " is outside 2..",
            kMaxNodes);
  A2V_CHECK(num_op_types >= 1 && num_op_types <= kMaxOpTypes, "num_op_types: ", num_op_types,
            " is outside 1..", kMaxOpTypes);
  const CellLayout layout{static_cast<int>(num_nodes), static_cast<int>(num_op_types)};
  A2V_CHECK(codes.scalar_type() == torch::headeronly::ScalarType::Long, "codes: expected int64");
  A2V_CHECK(codes.dim() == 2 && codes.size(1) == layout.words(), "codes: expected shape [B, ",
            layout.words(), "] for cells of ", num_nodes, " nodes and ", num_op_types,
            " operation types");
  return layout;
}

inline CellUnpackCall prepare_cell_unpack(const torch::stable::Tensor& codes,
                                          std::int64_t num_nodes, std::int64_t num_op_types) {
  using torch::headeronly::ScalarType;
  const CellLayout layout = check_cell_unpack(codes, num_nodes, num_op_types);
  const torch::stable::Tensor packed = torch::stable::contiguous(codes);
  const std::int64_t num_cells = packed.size(0);
  const torch::stable::Tensor adjacency =
      torch::stable::new_empty(packed, {num_cells, num_nodes, num_nodes}, ScalarType::Float);
  const torch::stable::Tensor node_ops =
      torch::stable::new_empty(packed, {num_cells, num_nodes, num_op_types}, ScalarType::Float);
  const CellUnpackParams params{
      .layout = layout,
      .num_cells = num_cells,
      .codes = packed.const_data_ptr<std::int64_t>(),
      .adjacency = adjacency.mutable_data_ptr<float>(),
      .node_ops = node_ops.mutable_data_ptr<float>(),
  };
  return {packed, adjacency, node_ops, params};
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::unpack_cells on the CPU: checks, allocation, threads. Schema in
// library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <tuple>

#include "cell_unpack/cell_unpack.h"
#include "common/check.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Cells a thread takes at least: about 0.3 MB of output, well above the cost of waking it.
constexpr std::int64_t kGrain = 1024;

// The public function has worded these for its users; here they keep the raw operator from reading
// out of bounds.
a2v::CellLayout check_arguments(const Tensor& codes, std::int64_t num_nodes,
                                std::int64_t num_op_types) {
  A2V_CHECK(num_nodes >= 2 && num_nodes <= a2v::kMaxNodes, "num_nodes: ", num_nodes,
            " is outside 2..", a2v::kMaxNodes);
  A2V_CHECK(num_op_types >= 1 && num_op_types <= a2v::kMaxOpTypes, "num_op_types: ", num_op_types,
            " is outside 1..", a2v::kMaxOpTypes);
  const a2v::CellLayout layout{static_cast<int>(num_nodes), static_cast<int>(num_op_types)};
  A2V_CHECK(codes.scalar_type() == ScalarType::Long, "codes: expected int64");
  A2V_CHECK(codes.dim() == 2 && codes.size(1) == layout.words(), "codes: expected shape [B, ",
            layout.words(), "] for cells of ", num_nodes, " nodes and ", num_op_types,
            " operation types");
  return layout;
}

void lower_to(std::atomic<std::int64_t>& minimum, std::int64_t value) {
  std::int64_t seen = minimum.load();
  while (value < seen && !minimum.compare_exchange_weak(seen, value)) {
  }
}

std::tuple<Tensor, Tensor> unpack_cells(const Tensor& codes, std::int64_t num_nodes,
                                        std::int64_t num_op_types) {
  const a2v::CellLayout layout = check_arguments(codes, num_nodes, num_op_types);
  const Tensor packed = torch::stable::contiguous(codes);
  const std::int64_t num_cells = packed.size(0);
  Tensor adjacency =
      torch::stable::new_empty(packed, {num_cells, num_nodes, num_nodes}, ScalarType::Float);
  Tensor node_ops =
      torch::stable::new_empty(packed, {num_cells, num_nodes, num_op_types}, ScalarType::Float);
  const a2v::CellUnpackParams params{
      .layout = layout,
      .num_cells = num_cells,
      .codes = packed.const_data_ptr<std::int64_t>(),
      .adjacency = adjacency.mutable_data_ptr<float>(),
      .node_ops = node_ops.mutable_data_ptr<float>(),
  };

  // Each thread stops at its first corrupt cell; the lowest one is reported, whatever the number of
  // threads.
  std::atomic<std::int64_t> corrupt{num_cells};
  torch::stable::parallel_for(0, num_cells, kGrain, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t stopped = a2v::cell_unpack_scalar(params, first, last);
    if (stopped != last) {
      lower_to(corrupt, stopped);
    }
  });
  A2V_CHECK(corrupt == num_cells, "codes: cell ", corrupt.load(), " is not a cell of ", num_nodes,
            " nodes and ", num_op_types, " operation types; check the layout it was packed with");
  return {adjacency, node_ops};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("unpack_cells", TORCH_BOX(&unpack_cells));
}

// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::unpack_cells on the CPU: threads. Schema in library.cpp.

#include "cell_unpack/cell_unpack_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <tuple>

#include "cell_unpack/cell_unpack.h"
#include "common/check.h"

namespace {

using torch::stable::Tensor;

// Cells a thread takes at least: about 0.3 MB of output, well above the cost of waking it.
constexpr std::int64_t kGrain = 1024;

void lower_to(std::atomic<std::int64_t>& minimum, std::int64_t value) {
  std::int64_t seen = minimum.load();
  while (value < seen && !minimum.compare_exchange_weak(seen, value)) {
  }
}

std::tuple<Tensor, Tensor> unpack_cells(const Tensor& codes, std::int64_t num_nodes,
                                        std::int64_t num_op_types) {
  const a2v::CellUnpackCall call = a2v::prepare_cell_unpack(codes, num_nodes, num_op_types);
  const std::int64_t num_cells = call.params.num_cells;

  // Each thread stops at its first corrupt cell; the lowest one is reported, whatever the number of
  // threads.
  std::atomic<std::int64_t> corrupt{num_cells};
  torch::stable::parallel_for(0, num_cells, kGrain, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t stopped = a2v::cell_unpack_scalar(call.params, first, last);
    if (stopped != last) {
      lower_to(corrupt, stopped);
    }
  });
  A2V_CHECK(corrupt == num_cells, "codes: cell ", corrupt.load(), " is not a cell of ", num_nodes,
            " nodes and ", num_op_types, " operation types; check the layout it was packed with");
  return {call.adjacency, call.node_ops};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("unpack_cells", TORCH_BOX(&unpack_cells));
}

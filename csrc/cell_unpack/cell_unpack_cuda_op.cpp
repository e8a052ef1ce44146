// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::unpack_cells on the GPU. Schema in library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "cell_unpack/cell_unpack.h"
#include "cell_unpack/cell_unpack_op.h"
#include "common/cuda_op.h"

namespace {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor> unpack_cells(const Tensor& codes, std::int64_t num_nodes,
                                        std::int64_t num_op_types) {
  const a2v::OnDeviceOf device(codes);
  const a2v::CellUnpackCall call = a2v::prepare_cell_unpack(codes, num_nodes, num_op_types);
  a2v::cell_unpack_cuda(call.params, device.stream());
  return {call.adjacency, call.node_ops};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("unpack_cells", TORCH_BOX(&unpack_cells));
}

// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::gin_train on the CPU: checks, results. Schema in library.cpp.

#include "gin_train/gin_train_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "gin_train/plan.h"

namespace {

using torch::stable::Tensor;

// In baseline code and before anything is changed.
void check_cells(const a2v::GinTrainParams& params) {
  const auto* codes = reinterpret_cast<const std::uint64_t*>(params.codes);
  for (std::int64_t i = 0; i < params.num_models * params.cells_in_call; ++i) {
    const std::int64_t row = params.order[i];
    A2V_CHECK(row >= 0 && row < params.num_cells, "order: ", row, " is not a row of the ",
              params.num_cells, " codes");
    A2V_CHECK(a2v::is_well_formed(params.layout, codes + row * params.layout.words()),
              "codes: cell ", row, " is not a cell of ", params.layout.num_nodes, " nodes and ",
              params.layout.num_op_types, " operation types; check the layout it was packed with");
  }
}

std::tuple<Tensor, Tensor> gin_train(Tensor parameters, Tensor exp_avg, Tensor exp_avg_sq,
                                     Tensor running, Tensor codes, Tensor order,
                                     Tensor learning_rate, Tensor seed, std::optional<Tensor> noise,
                                     std::optional<Tensor> keep, std::int64_t batch_size,
                                     std::int64_t first_step, std::vector<std::int64_t> config,
                                     std::vector<double> settings) {
  const a2v::GinTrainCall call({parameters, exp_avg, exp_avg_sq, running, codes, order,
                                learning_rate, seed, noise, keep, batch_size, first_step, config,
                                settings});
  check_cells(call.params());
  a2v::gin_train_cpu(call.params(), static_cast<int>(torch::stable::get_num_threads()));
  return {call.losses(), call.moments()};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) { m.impl("gin_train", TORCH_BOX(&gin_train)); }

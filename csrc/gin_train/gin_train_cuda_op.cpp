// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::gin_train and gin_train_phases on the GPU: checks, workspace,
// launch. Schemas in library.cpp. Nothing waits for the device, so cells and rows of `order` are
// checked there: a step that reads one that is none reports a loss of NaN.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "common/cuda_op.h"
#include "gin_train/gin_train_cuda.h"
#include "gin_train/gin_train_op.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Losses, moments and, where asked for, cycles [blocks, phases].
std::tuple<Tensor, Tensor, std::optional<Tensor>> run(a2v::GinTrainArguments arguments,
                                                      bool with_phases) {
  const Tensor parameters = arguments.parameters;
  const a2v::OnDeviceOf device(parameters);
  const a2v::GinTrainCall call(std::move(arguments));
  const a2v::GinTrainPlan plan = a2v::make_gin_train_plan(call.params(), a2v::gin_train_device());
  Tensor workspace = torch::stable::new_empty(
      parameters, {static_cast<std::int64_t>(plan.workspace_bytes() / sizeof(float))});
  a2v::GinTrainBuffers buffers{workspace.mutable_data_ptr<float>(), nullptr};
  std::optional<Tensor> phases;
  if (with_phases) {
    phases = torch::stable::new_zeros(
        parameters, {plan.groups * plan.blocks, static_cast<int>(a2v::TrainPhase::kCount)},
        ScalarType::Long);
    buffers.phases =
        reinterpret_cast<unsigned long long*>(phases->mutable_data_ptr<std::int64_t>());
  }
  a2v::launch_gin_train(call.params(), plan, buffers, device.stream());
  return {call.losses(), call.moments(), phases};
}

std::tuple<Tensor, Tensor> gin_train(Tensor parameters, Tensor exp_avg, Tensor exp_avg_sq,
                                     Tensor running, Tensor codes, Tensor order,
                                     Tensor learning_rate, Tensor seed, std::optional<Tensor> noise,
                                     std::optional<Tensor> keep, std::int64_t batch_size,
                                     std::int64_t first_step, std::vector<std::int64_t> config,
                                     std::vector<double> settings) {
  const auto [losses, moments, phases] =
      run({parameters, exp_avg, exp_avg_sq, running, codes, order, learning_rate, seed, noise, keep,
           batch_size, first_step, config, settings},
          false);
  return {losses, moments};
}

std::tuple<Tensor, Tensor, Tensor> gin_train_phases(
    Tensor parameters, Tensor exp_avg, Tensor exp_avg_sq, Tensor running, Tensor codes,
    Tensor order, Tensor learning_rate, Tensor seed, std::optional<Tensor> noise,
    std::optional<Tensor> keep, std::int64_t batch_size, std::int64_t first_step,
    std::vector<std::int64_t> config, std::vector<double> settings) {
  const auto [losses, moments, phases] =
      run({parameters, exp_avg, exp_avg_sq, running, codes, order, learning_rate, seed, noise, keep,
           batch_size, first_step, config, settings},
          true);
  return {losses, moments, *phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("gin_train", TORCH_BOX(&gin_train));
  m.impl("gin_train_phases", TORCH_BOX(&gin_train_phases));
}

// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::dngo_* on the GPU: checks, allocation, launches. Schemas in
// library.cpp.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cuda_op.h"
#include "dngo/dngo_cuda.h"
#include "dngo/dngo_op.h"

namespace {

using namespace a2v::dngo_ops;

// The second dimension of a grid, and more than anybody searches at once.
constexpr std::int64_t kMaxSeeds = 65535;

std::int64_t check_seeds(std::int64_t seeds) {
  A2V_CHECK(seeds <= kMaxSeeds, "seeds: ", seeds, " at once; a GPU call takes at most ", kMaxSeeds);
  return seeds;
}

std::tuple<Tensor, Tensor> dngo_draw(const Tensor& seed, std::int64_t num_inputs,
                                     std::int64_t num_hidden, std::int64_t num_epochs,
                                     std::int64_t num_points) {
  const a2v::OnDeviceOf device(seed);
  const DrawCall call = prepare_draw(seed, num_inputs, num_hidden, num_epochs, num_points);
  A2V_CHECK(num_points <= a2v::kMaxCudaDrawPoints, "num_points: ", num_points,
            " on a GPU; it shuffles at most ", a2v::kMaxCudaDrawPoints, ", draw on the CPU");
  a2v::dngo_draw_cuda(call.params, check_seeds(seed.size(0)), device.stream());
  return {call.parameters, call.order};
}

Tensor dngo_fit(const Tensor& parameters, const Tensor& points, const Tensor& targets,
                const Tensor& order, std::int64_t num_hidden, std::int64_t batch_size,
                double learning_rate) {
  const a2v::OnDeviceOf device(parameters);
  const FitCall call =
      prepare_fit(parameters, points, targets, order, num_hidden, batch_size, learning_rate);
  device.check(points, "points");
  device.check(targets, "targets");
  device.check(order, "order");
  A2V_CHECK(num_hidden <= a2v::kMaxCudaHidden, "parameters: ", num_hidden,
            " hidden units; the GPU kernel takes ", a2v::kMaxCudaHidden, ", train on the CPU");
  const std::int64_t bytes = a2v::dngo_fit_shared_bytes(call.params);
  A2V_CHECK(bytes <= a2v::kMaxSharedBytes, "points: network and points of a seed take ", bytes,
            " bytes of a GPU's shared memory, which has ", a2v::kMaxSharedBytes,
            "; train on the CPU or on fewer points");
  a2v::dngo_fit_cuda(call.params, check_seeds(points.size(0)), device.stream());
  return call.losses;
}

Tensor dngo_evidence(const Tensor& eigenvalue, const Tensor& energy, const Tensor& residual,
                     const Tensor& start, std::int64_t num_points, std::int64_t num_hidden,
                     bool released) {
  const a2v::OnDeviceOf device(eigenvalue);
  const EvidenceCall call =
      prepare_evidence(eigenvalue, energy, residual, start, num_points, num_hidden, released);
  device.check(energy, "energy");
  device.check(residual, "residual");
  device.check(start, "start");
  a2v::dngo_evidence_cuda(call.params, eigenvalue.size(0), device.stream());
  return call.optimum;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> dngo_acquire(
    const Tensor& candidates, const Tensor& weight, const Tensor& bias, const Tensor& coefficients,
    const Tensor& factor, const Tensor& noise, const Tensor& target,
    const std::optional<Tensor>& visited, std::int64_t num_results, std::int64_t score,
    bool predictions) {
  const a2v::OnDeviceOf device(candidates);
  const AcquireCall call =
      prepare_acquire({candidates, weight, bias, coefficients, factor, noise, target, visited},
                      num_results, score, predictions);
  device.check(weight, "weight");
  device.check(bias, "bias");
  device.check(coefficients, "coefficients");
  device.check(factor, "factor");
  device.check(noise, "noise");
  device.check(target, "target");
  if (visited.has_value()) {
    device.check(*visited, "visited");
  }
  const a2v::DngoLayout& layout = call.params.layout;
  A2V_CHECK(layout.num_hidden <= a2v::kMaxCudaHidden && layout.num_inputs <= a2v::kMaxCudaInputs,
            "weight: ", layout.num_hidden, " hidden units and ", layout.num_inputs,
            " inputs; the GPU kernel takes ", a2v::kMaxCudaHidden, " and ", a2v::kMaxCudaInputs,
            ", use the CPU");
  const std::int64_t seeds = check_seeds(weight.size(0));
  const std::int64_t count = call.params.num_candidates;
  Tensor scores = torch::stable::new_empty(call.inputs.weight, {seeds, count}, ScalarType::Float);
  const std::int64_t keys = a2v::dngo_select_keys(seeds, count, call.params.num_results);
  Tensor workspace = torch::stable::new_empty(call.inputs.weight, {keys}, ScalarType::Long);
  float* all = scores.mutable_data_ptr<float>();
  a2v::dngo_score_cuda(call.params, seeds, all, device.stream());
  a2v::dngo_select_cuda(
      call.params, seeds, all,
      reinterpret_cast<std::uint64_t*>(workspace.mutable_data_ptr<std::int64_t>()),
      call.scores.mutable_data_ptr<float>(), call.indices.mutable_data_ptr<std::int64_t>(),
      device.stream());
  return {call.scores, call.indices, call.mean, call.variance};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("dngo_draw", TORCH_BOX(&dngo_draw));
  m.impl("dngo_fit", TORCH_BOX(&dngo_fit));
  m.impl("dngo_evidence", TORCH_BOX(&dngo_evidence));
  m.impl("dngo_acquire", TORCH_BOX(&dngo_acquire));
}

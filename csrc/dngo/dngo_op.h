// SPDX-License-Identifier: Apache-2.0
// What the CPU and the CUDA operators of dngo share: prepare_x() checks the arguments, makes them
// contiguous, allocates the results, and returns all of it with the kernel's parameters. The public
// functions have worded the checks for their users; here they keep the raw operators from reading
// out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>

#include "common/check.h"
#include "dngo/dngo.h"

namespace a2v::dngo_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr std::int64_t kMaxUnits = 4096;
constexpr std::int64_t kMaxPoints = std::int64_t{1} << 20;

inline void check_shape(const char* name, const Tensor& tensor, ScalarType dtype,
                        std::initializer_list<std::int64_t> shape) {
  A2V_CHECK(tensor.scalar_type() == dtype, name, ": wrong dtype");
  A2V_CHECK(tensor.dim() == static_cast<std::int64_t>(shape.size()), name, ": expected ",
            shape.size(), " dimensions, got ", tensor.dim());
  std::int64_t dim = 0;
  for (const std::int64_t size : shape) {
    A2V_CHECK(tensor.size(dim) == size, name, ": expected size ", size, " in dimension ", dim,
              ", got ", tensor.size(dim));
    ++dim;
  }
}

inline DngoLayout check_layout(std::int64_t num_inputs, std::int64_t num_hidden) {
  A2V_CHECK(num_inputs >= 1 && num_inputs <= kMaxUnits, "num_inputs: ", num_inputs,
            " is outside 1..", kMaxUnits);
  A2V_CHECK(num_hidden >= 1 && num_hidden <= kMaxUnits, "num_hidden: ", num_hidden,
            " is outside 1..", kMaxUnits);
  return {static_cast<int>(num_inputs), static_cast<int>(num_hidden)};
}

inline int check_count(const char* name, std::int64_t count, std::int64_t least,
                       std::int64_t most) {
  A2V_CHECK(count >= least && count <= most, name, ": ", count, " is outside ", least, "..", most);
  return static_cast<int>(count);
}

inline Tensor rows(const Tensor& tensor) { return torch::stable::contiguous(tensor); }

struct DrawCall {
  Tensor seed;
  Tensor parameters;
  Tensor order;
  DngoDrawParams params;
};

inline DrawCall prepare_draw(const Tensor& seed, std::int64_t num_inputs, std::int64_t num_hidden,
                             std::int64_t num_epochs, std::int64_t num_points) {
  A2V_CHECK(seed.dim() == 1, "seed: expected 1 dimension");
  const std::int64_t seeds = seed.size(0);
  check_shape("seed", seed, ScalarType::Long, {seeds});
  const DngoLayout layout = check_layout(num_inputs, num_hidden);
  const int epochs = check_count("num_epochs", num_epochs, 0, kMaxPoints);
  const int points = check_count("num_points", num_points, 0, kMaxPoints);
  const Tensor keys = rows(seed);
  Tensor parameters = torch::stable::new_empty(keys, {seeds, layout.size()}, ScalarType::Float);
  Tensor order = torch::stable::new_empty(keys, {seeds, epochs, points}, ScalarType::Int);
  return {keys,
          parameters,
          order,
          {
              .layout = layout,
              .num_epochs = epochs,
              .num_points = points,
              .seed = keys.const_data_ptr<std::int64_t>(),
              .parameters = parameters.mutable_data_ptr<float>(),
              .order = order.mutable_data_ptr<std::int32_t>(),
          }};
}

struct FitCall {
  Tensor points;
  Tensor targets;
  Tensor order;
  Tensor losses;
  DngoFitParams params;
};

inline FitCall prepare_fit(const Tensor& parameters, const Tensor& points, const Tensor& targets,
                           const Tensor& order, std::int64_t num_hidden, std::int64_t batch_size,
                           double learning_rate) {
  A2V_CHECK(points.dim() == 3 && order.dim() == 3, "points, order: expected 3 dimensions");
  const std::int64_t seeds = points.size(0);
  const DngoLayout layout = check_layout(points.size(2), num_hidden);
  const int num_points = check_count("points", points.size(1), 1, kMaxPoints);
  const int epochs = check_count("order", order.size(1), 0, kMaxPoints);
  check_shape("points", points, ScalarType::Float, {seeds, num_points, layout.num_inputs});
  check_shape("targets", targets, ScalarType::Float, {seeds, num_points});
  check_shape("order", order, ScalarType::Int, {seeds, epochs, num_points});
  check_shape("parameters", parameters, ScalarType::Float, {seeds, layout.size()});
  A2V_CHECK(parameters.is_contiguous(), "parameters: expected a contiguous tensor");
  const std::int64_t most = num_points < kMaxDngoBatch ? num_points : kMaxDngoBatch;
  FitCall call{rows(points),
               rows(targets),
               rows(order),
               torch::stable::new_empty(points, {seeds, epochs}, ScalarType::Float),
               {}};
  call.params = {
      .layout = layout,
      .num_epochs = epochs,
      .num_points = num_points,
      .batch_size = check_count("batch_size", batch_size, 1, most),
      .learning_rate = static_cast<float>(learning_rate),
      .points = call.points.const_data_ptr<float>(),
      .targets = call.targets.const_data_ptr<float>(),
      .order = call.order.const_data_ptr<std::int32_t>(),
      .parameters = parameters.mutable_data_ptr<float>(),
      .losses = call.losses.mutable_data_ptr<float>(),
  };
  return call;
}

struct EvidenceCall {
  Tensor eigenvalue;
  Tensor energy;
  Tensor residual;
  Tensor start;
  Tensor optimum;
  DngoEvidenceParams params;
};

inline EvidenceCall prepare_evidence(const Tensor& eigenvalue, const Tensor& energy,
                                     const Tensor& residual, const Tensor& start,
                                     std::int64_t num_points, std::int64_t num_hidden,
                                     bool released) {
  A2V_CHECK(eigenvalue.dim() == 2, "eigenvalue: expected 2 dimensions");
  const std::int64_t seeds = eigenvalue.size(0);
  const std::int64_t rank = eigenvalue.size(1);
  check_shape("eigenvalue", eigenvalue, ScalarType::Double, {seeds, rank});
  check_shape("energy", energy, ScalarType::Double, {seeds, rank});
  check_shape("residual", residual, ScalarType::Double, {seeds});
  check_shape("start", start, ScalarType::Double, {seeds, 2});
  const int points = check_count("num_points", num_points, 1, kMaxPoints);
  const int hidden = check_count("num_hidden", num_hidden, 1, kMaxUnits);
  EvidenceCall call{rows(eigenvalue),
                    rows(energy),
                    rows(residual),
                    rows(start),
                    torch::stable::new_empty(eigenvalue, {seeds, 2}, ScalarType::Double),
                    {}};
  call.params = {
      .num_points = points,
      .num_hidden = hidden,
      .rank = check_count("eigenvalue", rank, 0, points < hidden ? points : hidden),
      .released = released,
      .eigenvalue = call.eigenvalue.const_data_ptr<double>(),
      .energy = call.energy.const_data_ptr<double>(),
      .residual = call.residual.const_data_ptr<double>(),
      .start = call.start.const_data_ptr<double>(),
      .optimum = call.optimum.mutable_data_ptr<double>(),
  };
  return call;
}

struct AcquireInputs {
  Tensor candidates;
  Tensor weight;
  Tensor bias;
  Tensor coefficients;
  Tensor factor;
  Tensor noise;
  Tensor target;
  std::optional<Tensor> visited;
};

struct AcquireCall {
  AcquireInputs inputs;
  Tensor scores;
  Tensor indices;
  Tensor mean;
  Tensor variance;
  DngoAcquireParams params;
};

inline void check_acquire(const AcquireInputs& inputs) {
  A2V_CHECK(inputs.candidates.dim() == 2 && inputs.weight.dim() == 3,
            "candidates, weight: expected 2 and 3 dimensions");
  const std::int64_t count = inputs.candidates.size(0);
  const std::int64_t seeds = inputs.weight.size(0);
  const std::int64_t hidden = inputs.weight.size(1);
  const std::int64_t features = inputs.weight.size(2);
  A2V_CHECK(count < (std::int64_t{1} << 32) - 1, "candidates: at most 2^32 - 2");
  check_shape("candidates", inputs.candidates, ScalarType::Float, {count, features});
  check_shape("weight", inputs.weight, ScalarType::Float, {seeds, hidden, features});
  check_shape("bias", inputs.bias, ScalarType::Float, {seeds, hidden});
  check_shape("coefficients", inputs.coefficients, ScalarType::Float, {seeds, hidden});
  check_shape("factor", inputs.factor, ScalarType::Float, {seeds, hidden, hidden});
  check_shape("noise", inputs.noise, ScalarType::Float, {seeds});
  check_shape("target", inputs.target, ScalarType::Float, {seeds});
  if (inputs.visited.has_value()) {
    check_shape("visited", *inputs.visited, ScalarType::Bool, {seeds, count});
  }
}

inline AcquireCall prepare_acquire(const AcquireInputs& given, std::int64_t num_results,
                                   std::int64_t score, bool predictions) {
  check_acquire(given);
  A2V_CHECK(score == 0 || score == 1, "score: ", score, " is outside 0..1");
  const DngoLayout layout = check_layout(given.weight.size(2), given.weight.size(1));
  const int results = check_count("num_results", num_results, 0, kMaxDngoResults);
  const std::int64_t count = given.candidates.size(0);
  const std::int64_t seeds = given.weight.size(0);
  const auto empty = [&](std::int64_t columns, ScalarType dtype) {
    return torch::stable::new_empty(given.weight, {seeds, columns}, dtype);
  };
  AcquireCall call{
      {rows(given.candidates), rows(given.weight), rows(given.bias), rows(given.coefficients),
       rows(given.factor), rows(given.noise), rows(given.target),
       given.visited.has_value() ? std::optional(rows(*given.visited)) : std::nullopt},
      empty(results, ScalarType::Float),
      empty(results, ScalarType::Long),
      empty(predictions ? count : 0, ScalarType::Float),
      empty(predictions ? count : 0, ScalarType::Float),
      {}};
  const AcquireInputs& inputs = call.inputs;
  const void* visited = inputs.visited.has_value() ? inputs.visited->const_data_ptr() : nullptr;
  call.params = {
      .layout = layout,
      .num_candidates = count,
      .num_results = results,
      .score = static_cast<DngoScore>(score),
      .candidates = inputs.candidates.const_data_ptr<float>(),
      .weight = inputs.weight.const_data_ptr<float>(),
      .bias = inputs.bias.const_data_ptr<float>(),
      .coefficients = inputs.coefficients.const_data_ptr<float>(),
      .factor = inputs.factor.const_data_ptr<float>(),
      .noise = inputs.noise.const_data_ptr<float>(),
      .target = inputs.target.const_data_ptr<float>(),
      .visited = static_cast<const std::uint8_t*>(visited),
      .mean = predictions ? call.mean.mutable_data_ptr<float>() : nullptr,
      .variance = predictions ? call.variance.mutable_data_ptr<float>() : nullptr,
  };
  return call;
}

}  // namespace a2v::dngo_ops

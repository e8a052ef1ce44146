// SPDX-License-Identifier: Apache-2.0
// Argument checks and result shapes that the CPU and the CUDA operators of dngo share. The public
// functions have worded these for their users; here they keep the raw operators from reading out of
// bounds.
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

// Contiguous inputs of a fit, held while it runs.
struct FitInputs {
  Tensor points;
  Tensor targets;
  Tensor order;
};

inline DngoFitParams check_fit(const Tensor& parameters, const FitInputs& inputs,
                               std::int64_t num_hidden, std::int64_t batch_size,
                               double learning_rate) {
  A2V_CHECK(inputs.points.dim() == 3 && inputs.order.dim() == 3,
            "points, order: expected 3 dimensions");
  const std::int64_t seeds = inputs.points.size(0);
  const std::int64_t count = inputs.points.size(1);
  const DngoLayout layout = check_layout(inputs.points.size(2), num_hidden);
  const int num_points = check_count("points", count, 1, kMaxPoints);
  check_shape("points", inputs.points, ScalarType::Float, {seeds, count, layout.num_inputs});
  check_shape("targets", inputs.targets, ScalarType::Float, {seeds, count});
  check_shape("order", inputs.order, ScalarType::Int, {seeds, inputs.order.size(1), count});
  check_shape("parameters", parameters, ScalarType::Float, {seeds, layout.size()});
  A2V_CHECK(parameters.is_contiguous(), "parameters: expected a contiguous tensor");
  const std::int64_t most = num_points < kMaxDngoBatch ? num_points : kMaxDngoBatch;
  return {
      .layout = layout,
      .num_epochs = check_count("order", inputs.order.size(1), 0, kMaxPoints),
      .num_points = num_points,
      .batch_size = check_count("batch_size", batch_size, 1, most),
      .learning_rate = static_cast<float>(learning_rate),
      .points = inputs.points.const_data_ptr<float>(),
      .targets = inputs.targets.const_data_ptr<float>(),
      .order = inputs.order.const_data_ptr<std::int32_t>(),
      .parameters = parameters.mutable_data_ptr<float>(),
      .losses = nullptr,
  };
}

inline DngoEvidenceParams check_evidence(const Tensor& eigenvalue, const Tensor& energy,
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
  return {
      .num_points = points,
      .num_hidden = hidden,
      .rank = check_count("eigenvalue", rank, 0, points < hidden ? points : hidden),
      .released = released,
      .eigenvalue = eigenvalue.const_data_ptr<double>(),
      .energy = energy.const_data_ptr<double>(),
      .residual = residual.const_data_ptr<double>(),
      .start = start.const_data_ptr<double>(),
      .optimum = nullptr,
  };
}

// Contiguous inputs of an acquire call, held while it runs.
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

inline AcquireInputs contiguous(const AcquireInputs& inputs) {
  const auto rows = [](const Tensor& tensor) { return torch::stable::contiguous(tensor); };
  return {
      .candidates = rows(inputs.candidates),
      .weight = rows(inputs.weight),
      .bias = rows(inputs.bias),
      .coefficients = rows(inputs.coefficients),
      .factor = rows(inputs.factor),
      .noise = rows(inputs.noise),
      .target = rows(inputs.target),
      .visited = inputs.visited.has_value() ? std::optional(rows(*inputs.visited)) : std::nullopt,
  };
}

inline DngoAcquireParams check_acquire(const AcquireInputs& inputs, std::int64_t num_results,
                                       std::int64_t score) {
  A2V_CHECK(inputs.candidates.dim() == 2 && inputs.weight.dim() == 3,
            "candidates, weight: expected 2 and 3 dimensions");
  const std::int64_t count = inputs.candidates.size(0);
  const std::int64_t seeds = inputs.weight.size(0);
  const DngoLayout layout = check_layout(inputs.weight.size(2), inputs.weight.size(1));
  const std::int64_t hidden = layout.num_hidden;
  A2V_CHECK(count < (std::int64_t{1} << 32) - 1, "candidates: at most 2^32 - 2");
  check_shape("candidates", inputs.candidates, ScalarType::Float, {count, layout.num_inputs});
  check_shape("weight", inputs.weight, ScalarType::Float, {seeds, hidden, layout.num_inputs});
  check_shape("bias", inputs.bias, ScalarType::Float, {seeds, hidden});
  check_shape("coefficients", inputs.coefficients, ScalarType::Float, {seeds, hidden});
  check_shape("factor", inputs.factor, ScalarType::Float, {seeds, hidden, hidden});
  check_shape("noise", inputs.noise, ScalarType::Float, {seeds});
  check_shape("target", inputs.target, ScalarType::Float, {seeds});
  if (inputs.visited.has_value()) {
    check_shape("visited", *inputs.visited, ScalarType::Bool, {seeds, count});
  }
  A2V_CHECK(score == 0 || score == 1, "score: ", score, " is outside 0..1");
  const void* visited = inputs.visited.has_value() ? inputs.visited->const_data_ptr() : nullptr;
  return {
      .layout = layout,
      .num_candidates = count,
      .num_results = check_count("num_results", num_results, 0, kMaxDngoResults),
      .score = static_cast<DngoScore>(score),
      .candidates = inputs.candidates.const_data_ptr<float>(),
      .weight = inputs.weight.const_data_ptr<float>(),
      .bias = inputs.bias.const_data_ptr<float>(),
      .coefficients = inputs.coefficients.const_data_ptr<float>(),
      .factor = inputs.factor.const_data_ptr<float>(),
      .noise = inputs.noise.const_data_ptr<float>(),
      .target = inputs.target.const_data_ptr<float>(),
      .visited = static_cast<const std::uint8_t*>(visited),
      .mean = nullptr,
      .variance = nullptr,
  };
}

}  // namespace a2v::dngo_ops

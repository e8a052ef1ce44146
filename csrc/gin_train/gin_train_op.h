// SPDX-License-Identifier: Apache-2.0
// From the tensors of the operator gin_train to GinTrainParams, for the CPU and for CUDA alike.
//
// Checks everything that can be told from shapes, dtypes, devices and the configuration; what needs
// the values of `order` and `codes` is left to the device. The public function has worded these for
// its users; here they keep the raw operator from reading out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "common/check.h"
#include "gin_train/gin_train.h"

namespace a2v {

// The operator's arguments, in the order of its schema.
struct GinTrainArguments {
  torch::stable::Tensor parameters;
  torch::stable::Tensor exp_avg;
  torch::stable::Tensor exp_avg_sq;
  torch::stable::Tensor running;
  torch::stable::Tensor codes;
  torch::stable::Tensor order;
  torch::stable::Tensor learning_rate;
  torch::stable::Tensor seed;
  std::optional<torch::stable::Tensor> noise;
  std::optional<torch::stable::Tensor> keep;
  std::int64_t batch_size;
  std::int64_t first_step;
  std::vector<std::int64_t> config;
  std::vector<double> settings;
};

// A checked call. Holds contiguous copies of inputs that were not, and the results.
class GinTrainCall {
 public:
  using Tensor = torch::stable::Tensor;
  using ScalarType = torch::headeronly::ScalarType;

  explicit GinTrainCall(GinTrainArguments arguments) : arguments_(std::move(arguments)) {
    read_config();
    check_sizes();
    check_tensors();
    fill_params();
  }

  const GinTrainParams& params() const { return params_; }
  const Tensor& losses() const { return *losses_; }
  const Tensor& moments() const { return *moments_; }

 private:
  void read_config() {
    A2V_CHECK(arguments_.config.size() == kGinTrainConfigSize, "config: expected ",
              kGinTrainConfigSize, " entries, got ", arguments_.config.size());
    A2V_CHECK(arguments_.settings.size() == kGinTrainSettingsSize, "settings: expected ",
              kGinTrainSettingsSize, " entries, got ", arguments_.settings.size());
    for (const std::int64_t value : arguments_.config) {
      A2V_CHECK(value >= 0 && value <= kMaxWidth, "config: ", value, " is outside 0..", kMaxWidth);
    }
    params_.config = read_gin_train_config(arguments_.config.data(), arguments_.settings.data());
    const GinTrainConfig& c = params_.config;
    params_.layout = {c.num_nodes, c.num_op_types};
    A2V_CHECK(params_.layout.supported(), "config: cells of ", c.num_nodes, " nodes and ",
              c.num_op_types, " operation types; up to ", kMaxNodes, " and ", kMaxOpTypes,
              " are supported");
    A2V_CHECK(c.num_classes == c.num_op_types || (c.softmax && c.num_classes == c.num_op_types + 1),
              "config: ", c.num_classes, " classes do not go with ", c.num_op_types,
              " operation types; only a softmax knows one more, \"absent\"");
    A2V_CHECK(c.num_layers >= 1 && c.num_layers <= kMaxGinLayers, "config: ", c.num_layers,
              " layers; 1..", kMaxGinLayers, " are supported");
    A2V_CHECK(c.num_mlp_layers >= 1 && c.num_mlp_layers <= kMaxMlpLayers,
              "config: ", c.num_mlp_layers, " linears a layer; 1..", kMaxMlpLayers,
              " are supported");
    A2V_CHECK(c.hidden_dim >= 1 && c.latent_dim >= 1, "config: empty hidden or latent vectors");
    A2V_CHECK(c.dropout >= 0.0F && c.dropout < 1.0F, "settings: dropout ", c.dropout,
              " is outside [0, 1)");
    A2V_CHECK(c.grad_clip > 0.0F, "settings: gradient clipping at ", c.grad_clip);
  }

  void check_sizes() {
    A2V_CHECK(arguments_.parameters.dim() == 2, "parameters: expected shape [G, P]");
    A2V_CHECK(arguments_.order.dim() == 2, "order: expected shape [G, T]");
    A2V_CHECK(arguments_.codes.dim() == 2, "codes: expected shape [Q, W]");
    A2V_CHECK(arguments_.batch_size >= 1 && arguments_.batch_size <= kMaxBatch,
              "batch_size: ", arguments_.batch_size, " is outside 1..", kMaxBatch);
    A2V_CHECK(arguments_.first_step >= 0, "first_step: ", arguments_.first_step, " is negative");
    params_.num_models = static_cast<int>(arguments_.parameters.size(0));
    params_.num_cells = arguments_.codes.size(0);
    params_.cells_in_call = arguments_.order.size(1);
    A2V_CHECK(params_.num_models >= 1 && params_.cells_in_call >= 1,
              "order: [G, T] has no cells to train on");
    params_.batch_size = arguments_.batch_size;
    params_.first_step = static_cast<std::uint64_t>(arguments_.first_step);
  }

  void check_tensors() {
    const GinTrainConfig& c = params_.config;
    const std::int64_t models = params_.num_models;
    const std::int64_t size = GinParameterLayout(c).size;
    const std::int64_t norms = c.num_norms();
    const std::int64_t cells = params_.cells_in_call;
    const std::int64_t steps = (cells + params_.batch_size - 1) / params_.batch_size;
    check_state("parameters", arguments_.parameters, {models, size});
    check_state("exp_avg", arguments_.exp_avg, {models, size});
    check_state("exp_avg_sq", arguments_.exp_avg_sq, {models, size});
    check_state("running", arguments_.running, {models, norms, 2, c.hidden_dim});
    take("codes", arguments_.codes, ScalarType::Long, {params_.num_cells, params_.layout.words()});
    take("order", arguments_.order, ScalarType::Long, {models, cells});
    take("learning_rate", arguments_.learning_rate, ScalarType::Double, {steps});
    take("seed", arguments_.seed, ScalarType::Long, {models});
    if (arguments_.noise) {
      take("noise", *arguments_.noise, ScalarType::Float,
           {models, cells, c.num_nodes, c.latent_dim});
    }
    if (arguments_.keep) {
      take("keep", *arguments_.keep, ScalarType::Byte, {models, cells, c.num_nodes, c.latent_dim});
    }
    losses_ = torch::stable::new_empty(arguments_.parameters, {models, steps, kGinTrainLosses});
    moments_ = torch::stable::new_empty(arguments_.parameters,
                                        {models, 2, std::int64_t{c.num_nodes} * c.latent_dim},
                                        ScalarType::Double);
  }

  void fill_params() {
    params_.codes = arguments_.codes.const_data_ptr<std::int64_t>();
    params_.order = arguments_.order.const_data_ptr<std::int64_t>();
    params_.learning_rate = arguments_.learning_rate.const_data_ptr<double>();
    params_.seed = arguments_.seed.const_data_ptr<std::int64_t>();
    params_.noise = arguments_.noise ? arguments_.noise->const_data_ptr<float>() : nullptr;
    params_.keep = arguments_.keep ? arguments_.keep->const_data_ptr<std::uint8_t>() : nullptr;
    params_.parameters = arguments_.parameters.mutable_data_ptr<float>();
    params_.exp_avg = arguments_.exp_avg.mutable_data_ptr<float>();
    params_.exp_avg_sq = arguments_.exp_avg_sq.mutable_data_ptr<float>();
    params_.running = arguments_.running.mutable_data_ptr<float>();
    params_.losses = losses_->mutable_data_ptr<float>();
    params_.moments = moments_->mutable_data_ptr<double>();
  }

  static constexpr std::int64_t kMaxWidth = 1 << 14;
  static constexpr std::int64_t kMaxBatch = 1 << 20;

  void check(const char* name, const Tensor& tensor, ScalarType type,
             std::initializer_list<std::int64_t> shape) const {
    A2V_CHECK(tensor.scalar_type() == type, name, ": has the wrong dtype");
    A2V_CHECK(tensor.device() == arguments_.parameters.device(), name,
              ": is on another device than the parameters");
    bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
    std::int64_t axis = 0;
    for (const std::int64_t extent : shape) {
      fits = fits && tensor.size(axis++) == extent;
    }
    if (!fits) {
      std::ostringstream wanted;
      for (const std::int64_t extent : shape) {
        wanted << (wanted.tellp() > 0 ? ", " : "") << extent;
      }
      fail(name, ": expected shape [", wanted.str(), "]");
    }
  }

  // Written in place: copies would be lost.
  void check_state(const char* name, const Tensor& tensor,
                   std::initializer_list<std::int64_t> shape) const {
    check(name, tensor, ScalarType::Float, shape);
    A2V_CHECK(tensor.is_contiguous(), name, ": must be contiguous, it is written in place");
  }

  void take(const char* name, Tensor& tensor, ScalarType type,
            std::initializer_list<std::int64_t> shape) {
    check(name, tensor, type, shape);
    tensor = torch::stable::contiguous(tensor);
  }

  GinTrainArguments arguments_;
  GinTrainParams params_{};
  std::optional<Tensor> losses_;
  std::optional<Tensor> moments_;
};

}  // namespace a2v

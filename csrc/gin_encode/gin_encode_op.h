// SPDX-License-Identifier: Apache-2.0
// What the CPU's and the GPU's operator gin_encode share: checks and the shape of the result.
//
// The public function has worded these checks for its users; here they keep the raw operator from
// reading out of bounds.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "common/check.h"
#include "gin_encode/gin_encode.h"

namespace a2v {

inline GinEncodeConfig check_gin_encode(const torch::stable::Tensor& codes,
                                        const torch::stable::Tensor& weights,
                                        const std::vector<std::int64_t>& config,
                                        std::int64_t output) {
  using torch::headeronly::ScalarType;
  A2V_CHECK(config.size() == kGinEncodeConfigSize, "config: expected ", kGinEncodeConfigSize,
            " entries");
  for (std::size_t i = 0; i < 6; ++i) {
    A2V_CHECK(config[i] >= 1 && config[i] <= 65536, "config: entry ", i, " is outside 1..65536");
  }
  const GinEncodeConfig c = read_gin_encode_config(config.data());
  A2V_CHECK(c.layout().supported(), "config: no layout has ", c.num_nodes, " nodes and ",
            c.num_op_types, " operation types");
  A2V_CHECK(output >= 0 && output <= 2, "output: ", output, " is outside 0..2");
  A2V_CHECK(codes.scalar_type() == ScalarType::Long, "codes: expected int64");
  A2V_CHECK(codes.dim() == 2 && codes.size(1) == c.layout().words(), "codes: expected shape [B, ",
            c.layout().words(), "]");
  A2V_CHECK(weights.scalar_type() == ScalarType::Float, "weights: expected float32");
  A2V_CHECK(weights.dim() == 1 && weights.size(0) == GinEncodeWeights(c).size(),
            "weights: expected shape [", GinEncodeWeights(c).size(), "]");
  return c;
}

inline std::vector<std::int64_t> gin_encode_result_shape(const GinEncodeConfig& config,
                                                         GinEncodeOutput output,
                                                         std::int64_t num_cells) {
  switch (output) {
    case GinEncodeOutput::kNodes:
      return {num_cells, config.num_nodes, config.latent_dim};
    case GinEncodeOutput::kHidden:
      return {num_cells, std::int64_t{config.num_layers} * config.hidden_dim};
    case GinEncodeOutput::kReadout:
      break;
  }
  return {num_cells, config.latent_dim};
}

}  // namespace a2v

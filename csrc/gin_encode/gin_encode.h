// SPDX-License-Identifier: Apache-2.0
// gin_encode: the encoder without training, straight from packed cells.
//
// Batch norm is folded into the linears (arch2vec_fast/models/inference.py), so layer l maps node
// states X to
//
//   X <- relu(W_K .. relu(W_1 (scale_l X + A (g1_l * X) + A^T (g2_l * X)) + b_1) .. + b_K)
//
// from one-hot operations (a zero row for an absent node); the head gives mu = W_head X + b_head.
// This header fixes what the CPU and the CUDA implementations share: the configuration, where each
// weight lies in the flat buffer, and the arguments.
//
// Shapes: B cells, N nodes, F operation types, H hidden, D latent, L layers of K linears, W_l input
// width of layer l (F for l = 0, else H), W words of a packed cell.
#pragma once

#include <cstdint>

#include "cells/packed_cell.h"

namespace a2v {

constexpr int kGinEncodeConfigSize = 8;  // entries of the operator's `config`

enum class GinEncodeOutput {
  kReadout = 0,  // [B, D]: mu summed over the nodes a cell has, or its mean over all N rows
  kNodes = 1,    // [B, N, D]: mu of every row, absent nodes included
  kHidden = 2,   // [B, L*H]: the same read-out of the states after each layer
};

// Of the products; states, sums and results are float32.
enum class GinEncodePrecision { kFloat32, kTensorFloat32, kBFloat16 };

struct GinEncodeConfig {
  int num_nodes;       // N
  int num_op_types;    // F
  int hidden_dim;      // H
  int latent_dim;      // D
  int num_layers;      // L
  int num_mlp_layers;  // K
  bool sum_readout;    // sum over the nodes a cell has; else mean over all N rows
  int share;           // equal sub-structures computed once: 1 yes, 0 no, -1 by cost (CPU only)

  constexpr CellLayout layout() const { return {num_nodes, num_op_types}; }
  constexpr int input_width(int layer) const { return layer == 0 ? num_op_types : hidden_dim; }
};

// The operator's list, in the order of the fields above.
inline GinEncodeConfig read_gin_encode_config(const std::int64_t* config) {
  const auto integer = [&](int index) { return static_cast<int>(config[index]); };
  return {
      .num_nodes = integer(0),
      .num_op_types = integer(1),
      .hidden_dim = integer(2),
      .latent_dim = integer(3),
      .num_layers = integer(4),
      .num_mlp_layers = integer(5),
      .sum_readout = config[6] != 0,
      .share = integer(7),
  };
}

// Offsets in the flat float32 buffer of folded weights. Layer after layer: scale [1]; gates
// [2, W_l] (row 0 successors, 1 predecessors; ones for a symmetric encoder); then K times weight
// [H, W_l or H], bias [H]. Last the head: weight [D, H], bias [D]. Matrices are [out, in],
// row-major.
struct GinEncodeWeights {
  std::int64_t num_op_types;    // F
  std::int64_t hidden_dim;      // H
  std::int64_t latent_dim;      // D
  std::int64_t num_layers;      // L
  std::int64_t num_mlp_layers;  // K

  explicit constexpr GinEncodeWeights(const GinEncodeConfig& config)
      : num_op_types(config.num_op_types),
        hidden_dim(config.hidden_dim),
        latent_dim(config.latent_dim),
        num_layers(config.num_layers),
        num_mlp_layers(config.num_mlp_layers) {}

  constexpr std::int64_t input_width(std::int64_t layer) const {
    return layer == 0 ? num_op_types : hidden_dim;
  }
  constexpr std::int64_t scale(std::int64_t layer) const {
    return layer == 0 ? 0 : layer_size(0) + (layer - 1) * layer_size(1);
  }
  constexpr std::int64_t gates(std::int64_t layer) const { return scale(layer) + 1; }
  // Linear `mlp` of a layer, 0 .. K-1.
  constexpr std::int64_t weight(std::int64_t layer, std::int64_t mlp) const {
    const std::int64_t first = gates(layer) + 2 * input_width(layer);
    const std::int64_t inner = hidden_dim * (hidden_dim + 1);
    return mlp == 0 ? first : first + hidden_dim * (input_width(layer) + 1) + (mlp - 1) * inner;
  }
  constexpr std::int64_t bias(std::int64_t layer, std::int64_t mlp) const {
    return weight(layer, mlp) + hidden_dim * (mlp == 0 ? input_width(layer) : hidden_dim);
  }
  constexpr std::int64_t head_weight() const { return scale(num_layers); }
  constexpr std::int64_t head_bias() const { return head_weight() + latent_dim * hidden_dim; }
  constexpr std::int64_t size() const { return head_bias() + latent_dim; }

 private:
  constexpr std::int64_t layer_size(std::int64_t layer) const {
    const std::int64_t width = input_width(layer);
    return 1 + 2 * width + hidden_dim * (width + 1) +
           (num_mlp_layers - 1) * hidden_dim * (hidden_dim + 1);
  }
};

// Contiguous arrays, owned and sized by the caller.
struct GinEncodeParams {
  GinEncodeConfig config;
  GinEncodeOutput output;
  GinEncodePrecision precision;
  std::int64_t num_cells;     // B
  const std::int64_t* codes;  // [B, W]
  const float* weights;       // [GinEncodeWeights::size()]
  float* result;              // see GinEncodeOutput
};

}  // namespace a2v

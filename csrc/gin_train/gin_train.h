// SPDX-License-Identifier: Apache-2.0
// gin_train: S whole training steps of the GIN autoencoder in one call, on packed cells.
//
// A step is what arch2vec_fast.pretrain does in plain PyTorch: unpack, L GIN layers of K linears
// with batch norm and ReLU, heads, reparameterisation, dropout, decoder, loss, backward pass,
// gradient-norm clipping, Adam. Equations and names: arch2vec_fast/models/{gin_vae,decoder}.py and
// pretrain/objective.py. This header fixes what the CPU and the CUDA implementations share: the
// configuration, where each parameter lies in the flat buffer, and the arguments.
//
// Shapes: G models (seeds) trained side by side, B cells a step, N nodes, F operation types,
// C classes, H hidden, D latent, M mixing width, W_l input width of layer l (F for l = 0, else H).
#pragma once

#include <cstdint>

#include "cells/packed_cell.h"

namespace a2v {

constexpr int kMaxGinLayers = 8;
constexpr int kMaxMlpLayers = 4;
constexpr int kGinTrainConfigSize = 16;   // entries of the operator's `config`
constexpr int kGinTrainSettingsSize = 3;  // entries of the operator's `settings`
constexpr int kGinTrainLosses = 5;        // loss, node, edge, kl, gradient norm before clipping

struct GinTrainConfig {
  int num_nodes;       // N
  int num_op_types;    // F
  int num_classes;     // C: F, or F + 1 where the last class means "absent"
  int hidden_dim;      // H
  int latent_dim;      // D
  int num_layers;      // L
  int num_mlp_layers;  // K, linears of a layer
  int node_mixing;     // M, 0: no mixer
  bool gated;          // one gate a direction, layer and channel; else both directions weigh 1
  bool variational;    // fc1 (mu) and fc2 (log sigma); else fc alone
  bool bilinear;       // edge logit z_i^T W z_j; else z_i . z_j
  bool position_bias;
  bool softmax;     // node loss: cross-entropy; else binary
  bool logits;      // losses on logits; else on float32 probabilities that saturate
  bool elbo;        // reduction; else that of the released code
  bool batch_mode;  // batch statistics, noise, dropout; else running statistics and z = mu
  float beta;       // factor of the KL term
  float dropout;
  float grad_clip;

  constexpr int input_width(int layer) const { return layer == 0 ? num_op_types : hidden_dim; }
  constexpr int num_norms() const { return num_layers * num_mlp_layers; }
};

// The operator's lists, in the order of the fields above.
inline GinTrainConfig read_gin_train_config(const std::int64_t* config, const double* settings) {
  const auto integer = [&](int index) { return static_cast<int>(config[index]); };
  const auto flag = [&](int index) { return config[index] != 0; };
  return {
      .num_nodes = integer(0),
      .num_op_types = integer(1),
      .num_classes = integer(2),
      .hidden_dim = integer(3),
      .latent_dim = integer(4),
      .num_layers = integer(5),
      .num_mlp_layers = integer(6),
      .node_mixing = integer(7),
      .gated = flag(8),
      .variational = flag(9),
      .bilinear = flag(10),
      .position_bias = flag(11),
      .softmax = flag(12),
      .logits = flag(13),
      .elbo = flag(14),
      .batch_mode = flag(15),
      .beta = static_cast<float>(settings[0]),
      .dropout = static_cast<float>(settings[1]),
      .grad_clip = static_cast<float>(settings[2]),
  };
}

// Offsets of the parameters in a model's flat buffer: the order of `module.parameters()`.
// Matrices are [out, in], row-major, as torch.nn.Linear holds them.
struct GinParameterLayout {
  struct Linear {
    int weight;
    int bias;
  };
  int eps;                                      // [L]
  Linear linear[kMaxGinLayers][kMaxMlpLayers];  // [H, W_l or H], [H]
  Linear norm[kMaxGinLayers][kMaxMlpLayers];    // [H], [H]; the last of a layer is its outer one
  Linear mu;                                    // [D, H], [D]
  Linear log_sigma;                             // [D, H], [D]
  int bilinear;                                 // [D, D]
  int node_bias;                                // [N, C]
  int edge_bias;                                // [N, N]
  Linear op_head;                               // [C, D], [C]
  Linear mixer_in;                              // [M, N*D], [M]
  Linear mixer_out;                             // [N*D, M], [N*D]
  int gates[kMaxGinLayers];                     // [2, W_l]: row 0 successors, 1 predecessors
  int size;                                     // P

  // Absent parameters have offset -1.
  explicit GinParameterLayout(const GinTrainConfig& config);
};

inline GinParameterLayout::GinParameterLayout(const GinTrainConfig& c) {
  int next = 0;
  const auto take = [&](int count) {
    const int offset = next;
    next += count;
    return offset;
  };
  const auto take_linear = [&](int out, int in) {
    Linear linear_offsets{};
    linear_offsets.weight = take(out * in);
    linear_offsets.bias = take(out);
    return linear_offsets;
  };
  const int flat = c.num_nodes * c.latent_dim;
  eps = take(c.num_layers);
  for (int l = 0; l < c.num_layers; ++l) {
    for (int k = 0; k < c.num_mlp_layers; ++k) {
      linear[l][k] = take_linear(c.hidden_dim, k == 0 ? c.input_width(l) : c.hidden_dim);
    }
    for (int k = 0; k + 1 < c.num_mlp_layers; ++k) {
      norm[l][k] = take_linear(c.hidden_dim, 1);
    }
  }
  for (int l = 0; l < c.num_layers; ++l) {
    norm[l][c.num_mlp_layers - 1] = take_linear(c.hidden_dim, 1);
  }
  mu = take_linear(c.latent_dim, c.hidden_dim);
  log_sigma = c.variational ? take_linear(c.latent_dim, c.hidden_dim) : Linear{-1, -1};
  bilinear = c.bilinear ? take(c.latent_dim * c.latent_dim) : -1;
  node_bias = c.position_bias ? take(c.num_nodes * c.num_classes) : -1;
  edge_bias = c.position_bias ? take(c.num_nodes * c.num_nodes) : -1;
  op_head = take_linear(c.num_classes, c.latent_dim);
  mixer_in = c.node_mixing != 0 ? take_linear(c.node_mixing, flat) : Linear{-1, -1};
  mixer_out = c.node_mixing != 0 ? take_linear(flat, c.node_mixing) : Linear{-1, -1};
  for (int l = 0; l < c.num_layers; ++l) {
    gates[l] = c.gated ? take(2 * c.input_width(l)) : -1;
  }
  size = next;
}

// Contiguous arrays, owned and sized by the caller. Model g reads seed[g], its own batch order and
// its own slices of everything that starts with G. All models share `codes`. Philox's element of
// node i and dimension d of the step's cell b is (b*N + i)*D + d, its step first_step + s, its seed
// the model's.
struct GinTrainParams {
  GinTrainConfig config;
  CellLayout layout;
  int num_models;               // G
  std::int64_t num_cells;       // Q, rows of `codes`
  std::int64_t cells_in_call;   // T: S = ceil(T / B) steps, the last one may be smaller
  std::int64_t batch_size;      // B
  std::uint64_t first_step;     // steps taken before this call: Adam's and Philox's counter
  const std::int64_t* codes;    // [Q, W]
  const std::int64_t* order;    // [G, T] rows of `codes`; step s takes s*B .. s*B + B - 1
  const double* learning_rate;  // [S]
  const std::int64_t* seed;     // [G]
  const float* noise;           // [G, T, N, D] standard normals, or null: Philox
  const std::uint8_t* keep;     // [G, T, N, D] dropout mask, or null: Philox
  float* parameters;            // [G, P]
  float* exp_avg;               // [G, P]
  float* exp_avg_sq;            // [G, P]
  float* running;               // [G, L*K, 2, H] mean and variance, in order of execution
  float* losses;                // [G, S, 5]
  double* moments;              // [G, 2, N*D] sums of mu and mu^2 over the cells of the call
};

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_train, from the encoder's last layer to the loss and back, for a group of tiles.
//
// heads -> z = mu + sigma * noise -> dropout -> mixer -> logits -> loss. The mixer sees a whole
// cell as one row, so it runs once for a group of tiles; everything else is tile by tile.
#pragma once

#include "common/gemm.h"
#include "gin_train/encoder_kernel.h"
#include "gin_train/loss_kernel.h"

namespace a2v::A2V_SIMD {

struct Group {
  int tiles;
  int cells;
  Tile tile[kGroupTiles];
};

// out = X W^T + b, or with backward weights X W.
inline void apply(ConstPanels x, int rows, int depth, const float* weight, int panels,
                  const float* bias, Panels out) {
  multiply(x, rows, depth, {weight, static_cast<std::ptrdiff_t>(depth) * kLanes}, panels,
           [=](int row, int p, V16 value) {
             const V16 result = bias != nullptr ? value + load(bias + p * kLanes) : value;
             store(out.data + p * out.stride + row * kLanes, result);
           });
}

// gradient [width] += column sums.
inline void add_bias_gradient(ConstPanels y, int rows, int width, float* gradient) {
  for (int start = 0; start < width; start += kLanes) {
    const float* from = y.data + (start / kLanes) * y.stride;
    const int count = width - start < kLanes ? width - start : kLanes;
    const V16 total = sum_rows(rows, [&](int r) { return load(from + r * kLanes); });
    store_first(gradient + start, load_first(gradient + start, count) + total, count);
  }
}

// `count` values from column `column` on of row `row`.
A2V_INLINE V16 load_columns(ConstPanels x, int row, int column, int count) {
  float lane[kLanes] = {};
  for (int i = 0; i < count; ++i) {
    const int c = column + i;
    lane[i] = x.data[(c / kLanes) * x.stride + row * kLanes + c % kLanes];
  }
  return load(lane);
}

A2V_INLINE void store_columns(Panels x, int row, int column, V16 value, int count) {
  float lane[kLanes];
  store(lane, value);
  for (int i = 0; i < count; ++i) {
    const int c = column + i;
    x.data[(c / kLanes) * x.stride + row * kLanes + c % kLanes] = lane[i];
  }
}

// Where a tile's part of the decoder's scratch lies.
struct DecoderTile {
  Panels mu;
  Panels log_sigma;
  Panels z;
  Panels mixed;
  Panels gradient;
  const float* noise;
  const float* keep;
  int first_row;  // of the mixer's matrices

  DecoderTile(const TrainTeam& team, const DecoderScratch& s, int index)
      : mu{}, log_sigma{}, z{}, mixed{}, gradient{}, noise{}, keep{}, first_row{} {
    const std::ptrdiff_t step = team.panel * team.latent_panels * index;
    const std::ptrdiff_t cell = team.params.config.num_nodes * team.params.config.latent_dim;
    mu = {s.posterior + 2 * step, team.panel};
    log_sigma = {s.posterior + 2 * step + team.panel * team.latent_panels, team.panel};
    z = {s.z + step, team.panel};
    mixed = {s.mixed + step, team.panel};
    gradient = {s.gradient + step, team.panel};
    noise = s.noise + cell * kTileCells * index;
    keep = s.keep + cell * kTileCells * index;
    first_row = kTileCells * index;
  }
};

// Calls body(cell, node, row, panel, lanes) for every vector of a tile's latents.
template <class Body>
A2V_INLINE void for_latents(const TrainTeam& team, const Tile& tile, Body&& body) {
  const GinTrainConfig& config = team.params.config;
  for (int c = 0, row = 0; c < tile.cells; ++c) {
    for (int v = 0; v < config.num_nodes; ++v, ++row) {
      for (int p = 0; p < team.latent_panels; ++p) {
        const int left = config.latent_dim - p * kLanes;
        body(c, v, row, p, left < kLanes ? left : kLanes);
      }
    }
  }
}

// Posterior and z of a tile.
inline void sample_latents(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                           int index) {
  const GinTrainConfig& config = team.params.config;
  const DecoderTile d(team, thread.decoder, index);
  const Panels flat{thread.decoder.flat, team.group_panel};
  const std::ptrdiff_t half = config.num_nodes * config.latent_dim;
  activate_tile(team, thread, tile, team.stages - 1);
  apply(input_of(team, tile, team.stages), tile.rows, config.hidden_dim, team.heads.forward,
        team.heads.out_panels, team.heads.bias, d.mu);
  V16 kl = zero();
  for_latents(team, tile, [&](int c, int v, int row, int p, int lanes) {
    const std::ptrdiff_t at = p * team.panel + row * kLanes;
    const std::ptrdiff_t element =
        static_cast<std::ptrdiff_t>(row) * config.latent_dim + p * kLanes;
    const V16 mu = load(d.mu.data + at);
    V16 z = mu;
    if (config.variational) {
      const V16 log_sigma = load(d.log_sigma.data + at);
      const V16 sigma = exp(log_sigma);
      kl = kl + (set1(1.0F) + log_sigma + log_sigma - mu * mu - sigma * sigma);
      if (config.batch_mode) {
        z = load_first(d.noise + element, lanes) * sigma + mu;
      }
    }
    if (config.batch_mode && config.dropout > 0.0F) {
      z = z * load_first(d.keep + element, lanes);
    }
    store(d.z.data + at, z);
    const int column = v * config.latent_dim + p * kLanes;
    if (config.node_mixing != 0) {
      store_columns(flat, d.first_row + c, column, z, lanes);
    }
    float values[kLanes];
    store(values, mu);
    for (int i = 0; i < lanes; ++i) {
      const double value = static_cast<double>(values[i]);
      thread.moments[column + i] += value;
      thread.moments[half + column + i] += value * value;
    }
  });
  if (config.variational) {
    thread.loss[2] -= static_cast<double>(sum(kl));
  }
}

// What the mixer adds to z, for the whole group.
inline void mix(const TrainTeam& team, const TrainThread& thread, int rows) {
  const DecoderScratch& s = thread.decoder;
  const Panels hidden{s.hidden, team.group_panel};
  apply(ConstPanels(s.flat, team.group_panel), rows, team.mixer_in.in, team.mixer_in.forward,
        team.mixing_panels, team.mixer_in.bias, hidden);
  for (int p = 0; p < team.mixing_panels; ++p) {
    float* at = s.hidden + p * team.group_panel;
    for (int r = 0; r < rows; ++r) {
      store(at + r * kLanes, relu(load(at + r * kLanes)));
    }
  }
  apply(hidden, rows, team.mixer_out.in, team.mixer_out.forward, team.flat_panels,
        team.mixer_out.bias, {s.flat_out, team.group_panel});
}

// Gradient of the mixer's output (flat_out) to its weights and its input (flat_gradient).
inline void mix_backward(const TrainTeam& team, const TrainThread& thread, int rows) {
  const DecoderScratch& s = thread.decoder;
  const std::ptrdiff_t panel = team.group_panel;
  const ConstPanels out(s.flat_out, panel);
  const PackedLinear& second = team.mixer_out;
  const PackedLinear& first = team.mixer_in;
  add_weight_gradient(out, second.out, ConstPanels(s.hidden, panel), second.in, rows,
                      thread.gradient + second.parameter.weight);
  add_bias_gradient(out, rows, second.out, thread.gradient + second.parameter.bias);
  multiply(out, rows, second.out,
           {second.backward, static_cast<std::ptrdiff_t>(second.out) * kLanes}, team.mixing_panels,
           [&](int row, int p, V16 value) {
             const std::ptrdiff_t at = p * panel + row * kLanes;
             store(s.hidden_gradient + at, select(load(s.hidden + at) > zero(), value, zero()));
           });
  const ConstPanels hidden(s.hidden_gradient, panel);
  add_weight_gradient(hidden, first.out, ConstPanels(s.flat, panel), first.in, rows,
                      thread.gradient + first.parameter.weight);
  add_bias_gradient(hidden, rows, first.out, thread.gradient + first.parameter.bias);
  apply(hidden, rows, first.out, first.backward, team.flat_panels, nullptr,
        {s.flat_gradient, panel});
}

// Node terms of a tile: loss, gradient of the operation head, and of `mixed` (stored).
inline float decode_nodes(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                          const DecoderTile& d, float factor) {
  const GinTrainConfig& config = team.params.config;
  const PackedLinear& head = team.op_head;
  const Panels logits{thread.decoder.logits, team.panel};
  apply(d.mixed, tile.rows, head.in, head.forward, head.out_panels, head.bias, logits);
  const int width = team.class_panels * kLanes;
  float loss = 0.0F;
  for (int row = 0; row < tile.rows; ++row) {
    const int node = row % config.num_nodes;
    float* at = logits.data + row * kLanes;
    if (config.position_bias) {
      for (int p = 0; p < team.class_panels; ++p) {
        store(at + p * team.panel,
              load(at + p * team.panel) + load(team.node_bias + node * width + p * kLanes));
      }
    }
    loss +=
        node_loss(config, tile.cell[row / config.num_nodes].label[node], at, team.panel, factor);
    if (config.position_bias) {
      for (int p = 0; p < team.class_panels; ++p) {
        float* total = thread.node_bias + node * width + p * kLanes;
        store(total, load(total) + load(at + p * team.panel));
      }
    }
  }
  add_weight_gradient(logits, head.out, d.mixed, head.in, tile.rows,
                      thread.gradient + head.parameter.weight);
  add_bias_gradient(logits, tile.rows, head.out, thread.gradient + head.parameter.bias);
  apply(logits, tile.rows, head.out, head.backward, team.latent_panels, nullptr, d.gradient);
  return loss;
}

// Pairs i < j of one cell: edge logit source_i . z_j. Writes the gradients of `source` (of these
// rows) and adds those of z. `first` is the cell's first row.
inline float decode_cell_edges(const TrainTeam& team, TrainThread& thread, const TrainCell& cell,
                               ConstPanels source, Panels source_gradient, const DecoderTile& d,
                               int first, float factor) {
  const GinTrainConfig& config = team.params.config;
  const int num_nodes = config.num_nodes;
  float* transposed = thread.decoder.transposed;
  for (int v = 0; v < num_nodes; ++v) {
    for (int k = 0; k < config.latent_dim; ++k) {
      transposed[k * kLanes + v] =
          d.mixed.data[(k / kLanes) * team.panel + (first + v) * kLanes + k % kLanes];
    }
  }
  V16 loss = zero();
  for (int i = 0; i < num_nodes; ++i) {
    V16 logit = config.position_bias ? load(team.edge_bias + i * kLanes) : zero();
    for (int k = 0; k < config.latent_dim; ++k) {
      const float left =
          source.data[(k / kLanes) * source.stride + (first + i) * kLanes + k % kLanes];
      logit = fma(set1(left), load(transposed + k * kLanes), logit);
    }
    const std::uint32_t later = ((1U << num_nodes) - 1) & ~((2U << i) - 1);
    const LossTerm term = binary_term(logit, mask_from(cell.succs[i]), config.logits);
    loss = loss + select(mask_from(later), term.loss, zero());
    const V16 g = select(mask_from(later), term.gradient * set1(factor), zero());
    store(thread.decoder.edge + i * kLanes, g);
    if (config.position_bias) {
      store(thread.edge_bias + i * kLanes, load(thread.edge_bias + i * kLanes) + g);
    }
  }
  const float* edge = thread.decoder.edge;
  for (int p = 0; p < team.latent_panels; ++p) {
    const std::ptrdiff_t at = p * team.panel + first * kLanes;
    for (int i = 0; i < num_nodes; ++i) {
      V16 left = zero();
      for (int j = i + 1; j < num_nodes; ++j) {
        left = fma(set1(edge[i * kLanes + j]), load(d.mixed.data + at + j * kLanes), left);
      }
      store(source_gradient.data + p * source_gradient.stride + (first + i) * kLanes, left);
      V16 right = load(d.gradient.data + at + i * kLanes);
      for (int j = 0; j < i; ++j) {
        right = fma(set1(edge[j * kLanes + i]),
                    load(source.data + p * source.stride + (first + j) * kLanes), right);
      }
      store(d.gradient.data + at + i * kLanes, right);
    }
  }
  return sum(loss);
}

// Edge terms of a tile; adds to the gradient of `mixed`.
inline float decode_edges(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                          const DecoderTile& d, float factor) {
  const GinTrainConfig& config = team.params.config;
  const Panels own{thread.decoder.source, team.panel};
  const Panels gradient{thread.decoder.source_gradient, team.panel};
  if (config.bilinear) {
    apply(d.mixed, tile.rows, config.latent_dim, team.bilinear_forward, team.latent_panels, nullptr,
          own);
  }
  const ConstPanels source = config.bilinear ? own : d.mixed;
  float loss = 0.0F;
  for (int c = 0; c < tile.cells; ++c) {
    loss += decode_cell_edges(team, thread, tile.cell[c], source, gradient, d, c * config.num_nodes,
                              factor);
  }
  if (config.bilinear) {
    add_weight_gradient(d.mixed, config.latent_dim, gradient, config.latent_dim, tile.rows,
                        thread.gradient + team.layout.bilinear);
    // The source is z W: back through W, in place of `own`, which is no longer needed.
    apply(gradient, tile.rows, config.latent_dim, team.bilinear_backward, team.latent_panels,
          nullptr, own);
  }
  const ConstPanels back = config.bilinear ? ConstPanels(own) : ConstPanels(gradient);
  for_latents(team, tile, [&](int, int, int row, int p, int) {
    float* at = d.gradient.data + p * team.panel + row * kLanes;
    store(at, load(at) + load(back.data + p * back.stride + row * kLanes));
  });
  return loss;
}

// The tile's logits, losses and gradient of z after dropout as far as it does not pass the mixer.
inline void decode_tile(const TrainTeam& team, TrainThread& thread, const Tile& tile, int index,
                        const LossScale& scale) {
  const GinTrainConfig& config = team.params.config;
  const DecoderTile d(team, thread.decoder, index);
  const Panels flat{thread.decoder.flat_out, team.group_panel};
  for_latents(team, tile, [&](int c, int v, int row, int p, int lanes) {
    const std::ptrdiff_t at = p * team.panel + row * kLanes;
    V16 z = load(d.z.data + at);
    if (config.node_mixing != 0) {
      z = z + load_columns(flat, d.first_row + c, v * config.latent_dim + p * kLanes, lanes);
    }
    store(d.mixed.data + at, z);
  });
  thread.loss[0] += static_cast<double>(decode_nodes(team, thread, tile, d, scale.node));
  thread.loss[1] += static_cast<double>(decode_edges(team, thread, tile, d, scale.edge));
  if (config.node_mixing != 0) {
    for_latents(team, tile, [&](int c, int v, int row, int p, int lanes) {
      store_columns(flat, d.first_row + c, v * config.latent_dim + p * kLanes,
                    load(d.gradient.data + p * team.panel + row * kLanes), lanes);
    });
  }
}

// Back through dropout, sampling and the heads to the encoder's last layer.
inline void sample_backward(const TrainTeam& team, TrainThread& thread, const Tile& tile, int index,
                            const LossScale& scale) {
  const GinTrainConfig& config = team.params.config;
  const DecoderTile d(team, thread.decoder, index);
  const Panels flat{thread.decoder.flat_gradient, team.group_panel};
  const Panels heads{thread.decoder.heads, team.panel};
  const V16 kl = set1(2.0F * scale.kl);
  for_latents(team, tile, [&](int c, int v, int row, int p, int lanes) {
    const std::ptrdiff_t at = p * team.panel + row * kLanes;
    const std::ptrdiff_t element =
        static_cast<std::ptrdiff_t>(row) * config.latent_dim + p * kLanes;
    V16 g = load(d.gradient.data + at);
    if (config.node_mixing != 0) {
      g = g + load_columns(flat, d.first_row + c, v * config.latent_dim + p * kLanes, lanes);
    }
    if (config.batch_mode && config.dropout > 0.0F) {
      g = g * load_first(d.keep + element, lanes);
    }
    if (!config.variational) {
      store(heads.data + at, g);
      return;
    }
    const V16 sigma = exp(load(d.log_sigma.data + at));
    V16 g_sigma = kl * (sigma * sigma - set1(1.0F));
    if (config.batch_mode) {
      g_sigma = fma(g * load_first(d.noise + element, lanes), sigma, g_sigma);
    }
    store(heads.data + at, fma(kl, load(d.mu.data + at), g));
    store(heads.data + team.latent_panels * team.panel + at, g_sigma);
  });
  const ConstPanels top = input_of(team, tile, team.stages);
  const GinParameterLayout::Linear parts[2] = {team.layout.mu, team.layout.log_sigma};
  for (int part = 0; part < (config.variational ? 2 : 1); ++part) {
    const ConstPanels y(heads.data + part * team.latent_panels * team.panel, team.panel);
    add_weight_gradient(y, config.latent_dim, top, config.hidden_dim, tile.rows,
                        thread.gradient + parts[part].weight);
    add_bias_gradient(y, tile.rows, config.latent_dim, thread.gradient + parts[part].bias);
  }
  apply(heads, tile.rows, team.heads.out, team.heads.backward, team.hidden_panels, nullptr,
        {tile.activations + team.tile.gradient, team.panel});
}

// Losses of a group, and the gradient of every tile's last stage.
inline void decode_group(const TrainTeam& team, TrainThread& thread, const Group& group,
                         const LossScale& scale) {
  const bool mixer = team.params.config.node_mixing != 0;
  for (int i = 0; i < group.tiles; ++i) {
    sample_latents(team, thread, group.tile[i], i);
  }
  if (mixer) {
    mix(team, thread, group.cells);
  }
  for (int i = 0; i < group.tiles; ++i) {
    decode_tile(team, thread, group.tile[i], i, scale);
  }
  if (mixer) {
    mix_backward(team, thread, group.cells);
  }
  for (int i = 0; i < group.tiles; ++i) {
    sample_backward(team, thread, group.tile[i], i, scale);
  }
}

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// gin_train, the encoder: one stage (linear, batch norm, ReLU) of one tile, forward and backward.
//
// Layer l sums x_v = (1 + eps_l) x_v + g1 * (sum over successors) + g2 * (sum over predecessors),
// then runs K stages. Everything is local to a tile but the statistics of the norms, which the
// caller merges over tiles and threads.
#pragma once

#include "common/gemm.h"
#include "common/sparse_rows.h"
#include "gin_train/plan.h"

namespace a2v::A2V_SIMD {

// Cells of one thread that are worked on together.
struct Tile {
  int first_cell;  // of the batch
  int cells;
  int rows;
  const TrainCell* cell;
  float* activations;
};

A2V_INLINE ConstPanels input_of(const TrainTeam& team, const Tile& tile, int stage) {
  return {tile.activations + team.tile.input[stage], team.panel};
}

// ReLU(norm(h)) of a stage's output h.
A2V_INLINE V16 activate(V16 h, V16 scale, V16 shift) { return relu(fma(h, scale, shift)); }

// The sixteen one-hot columns from 16 * panel on of a node.
A2V_INLINE V16 one_hot(const TrainCell& cell, int node, int panel) {
  const int lane = static_cast<int>(cell.label[node]) - 1 - kLanes * panel;
  const bool here = lane >= 0 && lane < kLanes;
  return select(mask_from(here ? 1U << lane : 0U), set1(1.0F), zero());
}

// Panels of a node's state that its neighbours' are summed with in one walk over the edges, whose
// branches nobody can predict.
constexpr int kEdgePanels = 4;

template <int Count>
struct NodeColumns {
  V16 panel[Count];
};

template <int Count>
A2V_INLINE NodeColumns<Count> sum_of(const NodeColumns<Count>* x, std::uint32_t nodes) {
  NodeColumns<Count> total;
#pragma GCC unroll 4
  for (int q = 0; q < Count; ++q) {
    total.panel[q] = zero();
  }
  for (; nodes != 0; nodes &= nodes - 1) {
    const NodeColumns<Count>& from = x[__builtin_ctz(nodes)];
#pragma GCC unroll 4
    for (int q = 0; q < Count; ++q) {
      total.panel[q] = total.panel[q] + from.panel[q];
    }
  }
  return total;
}

// group(first) for every kEdgePanels panels, single(panel) for the rest.
template <class Group, class Single>
A2V_INLINE void for_panels(int panels, Group&& group, Single&& single) {
  int p = 0;
  for (; p + kEdgePanels <= panels; p += kEdgePanels) {
    group(p);
  }
  for (; p < panels; ++p) {
    single(p);
  }
}

// x of a layer's input: `Count` panels from `panel` on of the nodes of one cell.
template <int Count>
A2V_INLINE void read_layer_input(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                                 int layer, int cell, int panel, NodeColumns<Count>* x) {
  const int num_nodes = team.params.config.num_nodes;
  if (layer == 0) {
    for (int v = 0; v < num_nodes; ++v) {
      for (int q = 0; q < Count; ++q) {
        x[v].panel[q] = one_hot(tile.cell[cell], v, panel + q);
      }
    }
    return;
  }
  const int before = layer * team.params.config.num_mlp_layers - 1;
  for (int q = 0; q < Count; ++q) {
    const V16 scale = load(thread.norm[before].scale + (panel + q) * kLanes);
    const V16 shift = load(thread.norm[before].shift + (panel + q) * kLanes);
    const float* h = tile.activations + team.tile.output[before] + (panel + q) * team.panel +
                     static_cast<std::ptrdiff_t>(cell) * num_nodes * kLanes;
    for (int v = 0; v < num_nodes; ++v) {
      x[v].panel[q] = activate(load(h + v * kLanes), scale, shift);
    }
  }
}

template <int Count>
inline void aggregate_panels(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                             int layer, int panel) {
  const GinTrainConfig& config = team.params.config;
  const int stage = layer * config.num_mlp_layers;
  const V16 self = set1(1.0F + team.params.parameters[team.layout.eps + layer]);
  const float* gates = team.gates[layer] + panel * kLanes;
  const std::ptrdiff_t backwards = team.stage[stage].linear.in_panels * kLanes;
  float* out = tile.activations + team.tile.input[stage] + panel * team.panel;
  for (int c = 0; c < tile.cells; ++c) {
    const TrainCell& cell = tile.cell[c];
    NodeColumns<Count> x[kMaxNodes];
    read_layer_input(team, thread, tile, layer, c, panel, x);
    for (int v = 0; v < config.num_nodes; ++v, out += kLanes) {
      const std::uint32_t both = cell.succs[v] | static_cast<std::uint32_t>(cell.preds[v]);
      const NodeColumns<Count> first = sum_of(x, config.gated ? cell.succs[v] : both);
      const NodeColumns<Count> second = sum_of(x, config.gated ? cell.preds[v] : 0U);
#pragma GCC unroll 4
      for (int q = 0; q < Count; ++q) {
        V16 y = self * x[v].panel[q];
        if (config.gated) {
          y = fma(load(gates + q * kLanes), first.panel[q], y);
          y = fma(load(gates + backwards + q * kLanes), second.panel[q], y);
        } else {
          y = y + first.panel[q];
        }
        store(out + q * team.panel, y);
      }
    }
  }
}

// Operand of a layer's first linear.
inline void aggregate(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                      int layer) {
  const int stage = layer * team.params.config.num_mlp_layers;
  for_panels(
      team.stage[stage].linear.in_panels,
      [&](int p) { aggregate_panels<kEdgePanels>(team, thread, tile, layer, p); },
      [&](int p) { aggregate_panels<1>(team, thread, tile, layer, p); });
}

// ReLU(norm(h)) of stage `from` as the operand of what follows it.
inline void activate_tile(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                          int from) {
  for (int p = 0; p < team.hidden_panels; ++p) {
    const V16 scale = load(thread.norm[from].scale + p * kLanes);
    const V16 shift = load(thread.norm[from].shift + p * kLanes);
    const float* h = tile.activations + team.tile.output[from] + p * team.panel;
    float* out = tile.activations + team.tile.input[from + 1] + p * team.panel;
    for (int r = 0; r < tile.rows; ++r) {
      store(out + r * kLanes, activate(load(h + r * kLanes), scale, shift));
    }
  }
}

// The stage's linear over a tile.
inline void forward_stage(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                          int stage) {
  const int mlp_layers = team.params.config.num_mlp_layers;
  if (stage % mlp_layers == 0) {
    aggregate(team, thread, tile, stage / mlp_layers);
  } else {
    activate_tile(team, thread, tile, stage - 1);
  }
  const PackedLinear& linear = team.stage[stage].linear;
  const ConstPanels weight{linear.forward, static_cast<std::ptrdiff_t>(linear.in) * kLanes};
  float* out = tile.activations + team.tile.output[stage];
  const std::ptrdiff_t panel = team.panel;
  const auto biased = [=](int row, int p, V16 value) {
    store(out + p * panel + row * kLanes, value + load(linear.bias + p * kLanes));
  };
  const ConstPanels input = input_of(team, tile, stage);
  if (stage % mlp_layers == 0) {
    multiply(input, tile.rows, linear.in, weight, linear.out_panels, biased);
  } else {
    multiply_rectified(input, tile.rows, linear.in, weight, linear.out_panels, thread.columns,
                       biased);
  }
}

// Sums over the rows of sixteen columns, in four chains that are added at the end.
template <class Term>
A2V_INLINE V16 sum_rows(int rows, Term&& term) {
  V16 total[4] = {zero(), zero(), zero(), zero()};
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      total[i] = total[i] + term(r + i);
    }
  }
  for (; r < rows; ++r) {
    total[0] = total[0] + term(r);
  }
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// Mean and sum of squared deviations of each column of a stage's output.
inline void column_statistics(const TrainTeam& team, const Tile& tile, int stage, float* mean,
                              float* m2) {
  const V16 inverse = set1(1.0F / static_cast<float>(tile.rows));
  for (int p = 0; p < team.hidden_panels; ++p) {
    const float* h = tile.activations + team.tile.output[stage] + p * team.panel;
    const V16 center = sum_rows(tile.rows, [&](int r) { return load(h + r * kLanes); }) * inverse;
    store(mean + p * kLanes, center);
    store(m2 + p * kLanes, sum_rows(tile.rows, [&](int r) {
            const V16 d = load(h + r * kLanes) - center;
            return d * d;
          }));
  }
}

// Chan's formula: moments of `count` rows take in those of `count_b` others.
template <class Number>
inline void merge_moments(double* mean, double* m2, double count, const Number* mean_b,
                          const Number* m2_b, double count_b, int width) {
  const double share = count_b / (count + count_b);
  const double factor = count * share;
  for (int i = 0; i < width; ++i) {
    const double delta = static_cast<double>(mean_b[i]) - mean[i];
    mean[i] += delta * share;
    m2[i] += static_cast<double>(m2_b[i]) + delta * delta * factor;
  }
}

// Adds the tile's sums of g and g (h - mean) to the thread's, g the gradient of norm's output.
inline void add_norm_sums(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                          int stage, double* sums) {
  const int width = team.hidden_panels * kLanes;
  const NormColumns& norm = thread.norm[stage];
  for (int p = 0; p < team.hidden_panels; ++p) {
    const V16 scale = load(norm.scale + p * kLanes);
    const V16 shift = load(norm.shift + p * kLanes);
    const V16 mean = load(norm.mean + p * kLanes);
    const float* h = tile.activations + team.tile.output[stage] + p * team.panel;
    const float* g = tile.activations + team.tile.gradient + p * team.panel;
    V16 plain[2] = {zero(), zero()};
    V16 slope[2] = {zero(), zero()};
    for (int r = 0; r < tile.rows; ++r) {
      const V16 value = load(h + r * kLanes);
      const V16 passed = select(fma(value, scale, shift) > zero(), load(g + r * kLanes), zero());
      plain[r & 1] = plain[r & 1] + passed;
      slope[r & 1] = fma(passed, value - mean, slope[r & 1]);
    }
    float lanes[2][kLanes];
    store(lanes[0], plain[0] + plain[1]);
    store(lanes[1], slope[0] + slope[1]);
    for (int i = 0; i < kLanes; ++i) {
      sums[p * kLanes + i] += static_cast<double>(lanes[0][i]);
      sums[width + p * kLanes + i] += static_cast<double>(lanes[1][i]);
    }
  }
}

// Gradient through ReLU and norm, into thread.scratch; adds the bias's gradient.
inline void norm_backward(const TrainTeam& team, const TrainThread& thread, const Tile& tile,
                          int stage) {
  const NormColumns& norm = thread.norm[stage];
  const PackedLinear& linear = team.stage[stage].linear;
  for (int p = 0; p < team.hidden_panels; ++p) {
    const V16 scale = load(norm.scale + p * kLanes);
    const V16 shift = load(norm.shift + p * kLanes);
    const V16 mean = load(norm.mean + p * kLanes);
    const V16 mean_g = load(norm.mean_g + p * kLanes);
    const V16 slope_g = load(norm.slope_g + p * kLanes);
    const float* h = tile.activations + team.tile.output[stage] + p * team.panel;
    const float* g = tile.activations + team.tile.gradient + p * team.panel;
    float* out = thread.scratch + p * team.panel;
    const V16 bias = sum_rows(tile.rows, [&](int r) {
      const V16 value = load(h + r * kLanes);
      const V16 passed = select(fma(value, scale, shift) > zero(), load(g + r * kLanes), zero());
      const V16 result = scale * ((passed - mean_g) - (value - mean) * slope_g);
      store(out + r * kLanes, result);
      return result;
    });
    float* total = thread.gradient + linear.parameter.bias + p * kLanes;
    const int count = linear.out - p * kLanes < kLanes ? linear.out - p * kLanes : kLanes;
    store_first(total, load_first(total, count) + bias, count);
  }
}

// gradient [out, in] += Y^T X over `rows` rows. Lanes beyond `in` add zeros to what follows them.
A2V_INLINE void add_weight_gradient(ConstPanels y, int out, ConstPanels x, int in, int rows,
                                    float* gradient) {
  outer(y, panels_of(out), x, panels_of(in), rows, [=](int o, int p, V16 value) {
    if (o < out) {
      float* at = gradient + static_cast<std::ptrdiff_t>(o) * in + p * kLanes;
      store(at, load(at) + value);
    }
  });
}

// `Count` panels of aggregate_backward; adds to the lanes of eps's gradient.
template <int Count>
inline void aggregate_panels_backward(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                                      int layer, int panel, V16* eps) {
  const GinTrainConfig& config = team.params.config;
  const int panels = team.stage[layer * config.num_mlp_layers].linear.in_panels;
  const V16 self = set1(1.0F + team.params.parameters[team.layout.eps + layer]);
  const float* gates = team.gates[layer] + panel * kLanes;
  V16 gate_sum[2][Count];
  for (int q = 0; q < Count; ++q) {
    gate_sum[0][q] = gate_sum[1][q] = zero();
  }
  const float* from = thread.scratch2 + panel * team.panel;
  float* out = tile.activations + team.tile.gradient + panel * team.panel;
  for (int c = 0; c < tile.cells; ++c, from += config.num_nodes * kLanes) {
    const TrainCell& cell = tile.cell[c];
    NodeColumns<Count> x[kMaxNodes];
    NodeColumns<Count> y[kMaxNodes];
    read_layer_input(team, thread, tile, layer, c, panel, x);
    for (int v = 0; v < config.num_nodes; ++v) {
      for (int q = 0; q < Count; ++q) {
        y[v].panel[q] = load(from + q * team.panel + v * kLanes);
        eps[q] = fma(y[v].panel[q], x[v].panel[q], eps[q]);
      }
    }
    for (int v = 0; v < config.num_nodes && config.gated; ++v) {
      const NodeColumns<Count> sums[2] = {sum_of(x, cell.succs[v]), sum_of(x, cell.preds[v])};
      for (int q = 0; q < Count; ++q) {
        gate_sum[0][q] = fma(y[v].panel[q], sums[0].panel[q], gate_sum[0][q]);
        gate_sum[1][q] = fma(y[v].panel[q], sums[1].panel[q], gate_sum[1][q]);
      }
    }
    for (int v = 0; layer > 0 && v < config.num_nodes; ++v, out += kLanes) {
      const std::uint32_t both = cell.succs[v] | static_cast<std::uint32_t>(cell.preds[v]);
      const NodeColumns<Count> first = sum_of(y, config.gated ? cell.preds[v] : both);
      const NodeColumns<Count> second = sum_of(y, config.gated ? cell.succs[v] : 0U);
#pragma GCC unroll 4
      for (int q = 0; q < Count; ++q) {
        V16 g = self * y[v].panel[q];
        if (config.gated) {
          g = fma(load(gates + q * kLanes), first.panel[q], g);
          g = fma(load(gates + (panels + q) * kLanes), second.panel[q], g);
        } else {
          g = g + first.panel[q];
        }
        store(out + q * team.panel, g);
      }
    }
  }
  for (int q = 0; q < Count && config.gated; ++q) {
    const int in = layer == 0 ? config.num_op_types : config.hidden_dim;
    const int first = (panel + q) * kLanes;
    const int count = in - first < kLanes ? in - first : kLanes;
    for (int d = 0; d < 2; ++d) {
      float* total = thread.gradient + team.layout.gates[layer] + d * in + first;
      store_first(total, load_first(total, count) + gate_sum[d][q], count);
    }
  }
}

// From the gradient of a layer's sums (thread.scratch2) to that of its input (the tile's gradient)
// and of eps and the gates.
inline void aggregate_backward(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                               int layer) {
  V16 eps[kEdgePanels] = {zero(), zero(), zero(), zero()};
  for_panels(
      team.stage[layer * team.params.config.num_mlp_layers].linear.in_panels,
      [&](int p) { aggregate_panels_backward<kEdgePanels>(team, thread, tile, layer, p, eps); },
      [&](int p) { aggregate_panels_backward<1>(team, thread, tile, layer, p, eps); });
  thread.gradient[team.layout.eps + layer] += sum((eps[0] + eps[1]) + (eps[2] + eps[3]));
}

// Weight, bias, eps and gate gradients of a stage, and the gradient of the stage before it.
inline void backward_stage(const TrainTeam& team, TrainThread& thread, const Tile& tile,
                           int stage) {
  const int mlp_layers = team.params.config.num_mlp_layers;
  const PackedLinear& linear = team.stage[stage].linear;
  const ConstPanels gradient{thread.scratch, team.panel};
  norm_backward(team, thread, tile, stage);
  add_weight_gradient(gradient, linear.out, input_of(team, tile, stage), linear.in, tile.rows,
                      thread.gradient + linear.parameter.weight);
  const bool first = stage % mlp_layers == 0;
  float* out = first ? thread.scratch2 : tile.activations + team.tile.gradient;
  const std::ptrdiff_t panel = team.panel;
  const ConstPanels weight{linear.backward, static_cast<std::ptrdiff_t>(linear.out) * kLanes};
  const auto into = [=](int row, int p, V16 value) {
    store(out + p * panel + row * kLanes, value);
  };
  if (team.params.config.batch_mode) {
    multiply(gradient, tile.rows, linear.out, weight, linear.in_panels, into);
  } else {  // the norm hands on the zeros of the ReLU behind it
    multiply_rectified(gradient, tile.rows, linear.out, weight, linear.in_panels, thread.columns,
                       into);
  }
  if (first) {
    aggregate_backward(team, thread, tile, stage / mlp_layers);
  }
}

}  // namespace a2v::A2V_SIMD

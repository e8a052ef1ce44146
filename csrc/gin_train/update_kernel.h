// SPDX-License-Identifier: Apache-2.0
// gin_train, around the passes: packing the parameters before a step, Adam after it.
#pragma once

#include "common/gemm.h"
#include "gin_train/plan.h"

namespace a2v::A2V_SIMD {

inline void copy_rows(const float* from, int rows, int width, float* to, int padded) {
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < width; ++i) {
      to[r * padded + i] = from[r * width + i];
    }
  }
}

inline void pack_linear(const PackedLinear& linear, const float* parameters) {
  const float* weight = parameters + linear.parameter.weight;
  pack_transposed(weight, linear.out, linear.in, linear.forward);
  pack_rows(weight, linear.out, linear.in, linear.backward);
  copy_rows(parameters + linear.parameter.bias, 1, linear.out, linear.bias, linear.out);
}

// mu and log sigma as one linear; each part is padded to whole panels.
inline void pack_heads(const TrainTeam& team, const float* parameters) {
  const GinTrainConfig& config = team.params.config;
  const GinParameterLayout::Linear parts[2] = {team.layout.mu, team.layout.log_sigma};
  const int width = team.latent_panels * kLanes;
  const PackedLinear& heads = team.heads;
  for (int part = 0; part < (config.variational ? 2 : 1); ++part) {
    const float* weight = parameters + parts[part].weight;
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(part) * width;
    pack_transposed(weight, config.latent_dim, heads.in, heads.forward + first * heads.in);
    pack_rows(weight, config.latent_dim, heads.in, heads.backward + first * kLanes,
              static_cast<std::ptrdiff_t>(heads.out) * kLanes);
    copy_rows(parameters + parts[part].bias, 1, config.latent_dim, heads.bias + first, width);
  }
}

inline void pack_decoder(const TrainTeam& team, const float* parameters) {
  const GinTrainConfig& config = team.params.config;
  pack_heads(team, parameters);
  pack_linear(team.op_head, parameters);
  if (config.bilinear) {
    const float* weight = parameters + team.layout.bilinear;
    pack_rows(weight, config.latent_dim, config.latent_dim, team.bilinear_forward);
    pack_transposed(weight, config.latent_dim, config.latent_dim, team.bilinear_backward);
  }
  if (config.position_bias) {
    copy_rows(parameters + team.layout.node_bias, config.num_nodes, config.num_classes,
              team.node_bias, team.class_panels * kLanes);
    copy_rows(parameters + team.layout.edge_bias, config.num_nodes, config.num_nodes,
              team.edge_bias, kLanes);
  }
}

// The thread's share of what the passes read: stages, mixer and decoder in turn.
inline void pack_parameters(const TrainTeam& team, int thread) {
  const GinTrainConfig& config = team.params.config;
  const float* parameters = team.params.parameters;
  int item = 0;
  const auto mine = [&] { return item++ % team.threads == thread; };
  for (int s = 0; s < team.stages; ++s) {
    if (!mine()) {
      continue;
    }
    const Stage& stage = team.stage[s];
    pack_linear(stage.linear, parameters);
    copy_rows(parameters + stage.norm.weight, 1, config.hidden_dim, stage.gamma, 0);
    copy_rows(parameters + stage.norm.bias, 1, config.hidden_dim, stage.beta, 0);
    const int layer = s / config.num_mlp_layers;
    if (config.gated && s % config.num_mlp_layers == 0) {
      copy_rows(parameters + team.layout.gates[layer], 2, stage.linear.in, team.gates[layer],
                stage.linear.in_panels * kLanes);
    }
  }
  if (config.node_mixing != 0 && mine()) {
    pack_linear(team.mixer_in, parameters);
  }
  if (config.node_mixing != 0 && mine()) {
    pack_linear(team.mixer_out, parameters);
  }
  if (mine()) {
    pack_decoder(team, parameters);
  }
}

// The thread's slice of the parameters, whole vectors but for the end.
struct Slice {
  int first;
  int last;
};

inline Slice slice_of(const TrainTeam& team, int thread) {
  const std::int64_t vectors = panels_of(team.layout.size);
  const auto bound = [&](int t) {
    const std::int64_t at = vectors * t / team.threads * kLanes;
    return static_cast<int>(at < team.layout.size ? at : team.layout.size);
  };
  return {bound(thread), bound(thread + 1)};
}

// Adds up the threads' gradients into that of thread 0, over the thread's slice, and its square.
// Buffers reach sixteen floats beyond the parameters, which hold zeros.
inline void reduce_gradient(const TrainTeam& team, int thread) {
  constexpr int kBlock = 256 * kLanes;  // summed in float32, blocks in double
  const Slice slice = slice_of(team, thread);
  double squared = 0.0;
  for (int start = slice.first; start < slice.last; start += kBlock) {
    const int end = start + kBlock < slice.last ? start + kBlock : slice.last;
    V16 total = zero();
    for (int i = start; i < end; i += kLanes) {
      V16 g = load(team.thread[0].gradient + i);
      for (int t = 1; t < team.threads; ++t) {
        g = g + load(team.thread[t].gradient + i);
      }
      store(team.thread[0].gradient + i, g);
      total = fma(g, g, total);
    }
    squared += static_cast<double>(sum(total));
  }
  team.thread[thread].squared_norm = squared;
}

struct AdamStep {
  float clip;             // factor of the gradient
  float step_size;        // learning rate / (1 - 0.9^t)
  float root_correction;  // sqrt(1 - 0.999^t)
};

A2V_INLINE void adam_vector(const AdamStep& step, V16 g, V16* parameter, V16* mean, V16* square) {
  g = g * set1(step.clip);
  *mean = fma(g - *mean, set1(0.1F), *mean);
  *square = fma(g * g, set1(0.001F), *square * set1(0.999F));
  const V16 root = sqrt(*square) / set1(step.root_correction) + set1(1e-8F);
  *parameter = *parameter - set1(step.step_size) * (*mean / root);
}

// torch.optim.Adam with its defaults, over the thread's slice.
inline void update_parameters(const TrainTeam& team, int thread, const AdamStep& step) {
  const Slice slice = slice_of(team, thread);
  const GinTrainParams& params = team.params;
  for (int i = slice.first; i < slice.last; i += kLanes) {
    const int count = slice.last - i < kLanes ? slice.last - i : kLanes;
    const V16 g = load(team.thread[0].gradient + i);
    if (count == kLanes) {
      V16 parameter = load(params.parameters + i);
      V16 mean = load(params.exp_avg + i);
      V16 square = load(params.exp_avg_sq + i);
      adam_vector(step, g, &parameter, &mean, &square);
      store(params.parameters + i, parameter);
      store(params.exp_avg + i, mean);
      store(params.exp_avg_sq + i, square);
    } else {
      V16 parameter = load_first(params.parameters + i, count);
      V16 mean = load_first(params.exp_avg + i, count);
      V16 square = load_first(params.exp_avg_sq + i, count);
      adam_vector(step, g, &parameter, &mean, &square);
      store_first(params.parameters + i, parameter, count);
      store_first(params.exp_avg + i, mean, count);
      store_first(params.exp_avg_sq + i, square, count);
    }
  }
}

}  // namespace a2v::A2V_SIMD

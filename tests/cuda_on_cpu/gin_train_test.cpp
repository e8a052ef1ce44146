// SPDX-License-Identifier: Apache-2.0
// The training kernel of gin_train.cu against the CPU engine: whole steps from equal states, with
// numbers of its own and injected ones, under every schedule of threads, which must not change a
// bit.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "gin_train/gin_train_cuda.h"
#include "gin_train/plan.h"

namespace {

using a2v::CellLayout;
using a2v::GinParameterLayout;
using a2v::GinTrainConfig;
using a2v::GinTrainParams;
using cuda_on_cpu::Guarded;

struct Case {
  const char* name;
  GinTrainConfig config;
  int models;
  std::int64_t cells;
  std::int64_t batch;
  bool injected;
  a2v::TrainDevice device;
};

// What a call reads and writes.
template <template <class> class Array>
struct Arrays {
  Array<float> parameters, exp_avg, exp_avg_sq, running, losses;
  Array<double> moments;
};

template <class T>
using Plain = std::vector<T>;

struct Inputs {
  std::vector<std::int64_t> codes, order, seed;
  std::vector<double> learning_rate;
  std::vector<float> noise;
  std::vector<std::uint8_t> keep;
  Arrays<Plain> state;
};

constexpr std::int64_t kRows = 40;  // different cells

std::vector<std::int64_t> random_codes(const CellLayout& layout, std::mt19937_64& random) {
  const auto width = static_cast<std::size_t>(layout.words());
  std::vector<std::uint64_t> words(kRows * width);
  for (std::size_t b = 0; b < kRows; ++b) {
    a2v::Cell cell;
    for (int v = 0; v < layout.num_nodes; ++v) {
      cell.preds[v] = static_cast<std::uint16_t>(random() & ((1U << v) - 1U));
      cell.label[v] =
          static_cast<std::uint8_t>(random() % (static_cast<unsigned>(layout.num_op_types) + 1U));
    }
    a2v::pack_cell(layout, cell, &words[b * width]);
  }
  return {words.begin(), words.end()};
}

std::vector<float> normals(std::size_t count, float mean, float deviation,
                           std::mt19937_64& random) {
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Weights large enough for the layers to matter, and second moments that keep Adam away from the
// sign function: from zero, it blows rounding errors up to whole steps.
Arrays<Plain> random_state(const Case& c, std::mt19937_64& random) {
  const auto models = static_cast<std::size_t>(c.models);
  const std::size_t size = models * static_cast<std::size_t>(GinParameterLayout(c.config).size);
  const auto steps = static_cast<std::size_t>((c.cells + c.batch - 1) / c.batch);
  const auto norms = static_cast<std::size_t>(c.config.num_norms() * c.config.hidden_dim);
  const auto flat = static_cast<std::size_t>(c.config.num_nodes * c.config.latent_dim);
  Arrays<Plain> state{.parameters = normals(size, 0.05F, 0.2F, random),
                      .exp_avg = normals(size, 0.0F, 1e-3F, random),
                      .exp_avg_sq = normals(size, 0.0F, 1e-3F, random),
                      .running = normals(models * 2 * norms, 0.0F, 0.3F, random),
                      .losses = std::vector<float>(models * steps * a2v::kGinTrainLosses),
                      .moments = std::vector<double>(models * 2 * flat)};
  for (float& value : state.exp_avg_sq) value = value * value + 1e-7F;
  for (float& value : state.running) value = std::fabs(value) + 0.5F;
  return state;
}

Inputs random_inputs(const Case& c) {
  std::mt19937_64 random(static_cast<std::uint64_t>(c.cells));
  const auto total = static_cast<std::size_t>(c.models * c.cells);
  const auto draws = total * static_cast<std::size_t>(c.config.num_nodes * c.config.latent_dim);
  Inputs inputs{.codes = random_codes({c.config.num_nodes, c.config.num_op_types}, random),
                .order = std::vector<std::int64_t>(total),
                .seed = {},
                .learning_rate = {},
                .noise = {},
                .keep = {},
                .state = random_state(c, random)};
  for (auto& row : inputs.order) row = static_cast<std::int64_t>(random() % kRows);
  for (int g = 0; g < c.models; ++g) inputs.seed.push_back(3 - 2 * g);
  for (std::int64_t s = 0; s * c.batch < c.cells; ++s) {
    inputs.learning_rate.push_back(1e-3 * (1.0 + 0.1 * static_cast<double>(s)));
  }
  if (c.injected) {
    inputs.noise = normals(draws, 0.0F, 1.0F, random);
    for (std::size_t i = 0; i < draws; ++i) {
      inputs.keep.push_back(random() % 3 != 0 ? 1 : 0);
    }
  }
  return inputs;
}

template <class State>
GinTrainParams params_of(const Case& c, const Inputs& inputs, State& state) {
  return {.config = c.config,
          .layout = {c.config.num_nodes, c.config.num_op_types},
          .num_models = c.models,
          .num_cells = kRows,
          .cells_in_call = c.cells,
          .batch_size = c.batch,
          .first_step = 5,
          .codes = inputs.codes.data(),
          .order = inputs.order.data(),
          .learning_rate = inputs.learning_rate.data(),
          .seed = inputs.seed.data(),
          .noise = c.injected ? inputs.noise.data() : nullptr,
          .keep = c.injected ? inputs.keep.data() : nullptr,
          .parameters = state.parameters.data(),
          .exp_avg = state.exp_avg.data(),
          .exp_avg_sq = state.exp_avg_sq.data(),
          .running = state.running.data(),
          .losses = state.losses.data(),
          .moments = state.moments.data()};
}

// Relative to the norm of what is wanted; NaN never passes.
template <class Array>
void require_close(const Array& have, const Array& want, double tolerance, const char* what) {
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(have[i]) - static_cast<double>(want[i]), 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  if (!(std::sqrt(error) <= tolerance * std::sqrt(norm))) {
    throw cuda_on_cpu::Error(std::string(what) + " differ by " + std::to_string(std::sqrt(error)) +
                             " of " + std::to_string(std::sqrt(norm)));
  }
}

Arrays<Plain> run_kernel(const Case& c, const Inputs& inputs) {
  const Arrays<Plain>& start = inputs.state;
  Arrays<Guarded> state{.parameters = Guarded<float>(start.parameters),
                        .exp_avg = Guarded<float>(start.exp_avg),
                        .exp_avg_sq = Guarded<float>(start.exp_avg_sq),
                        .running = Guarded<float>(start.running),
                        .losses = Guarded<float>(start.losses.size()),
                        .moments = Guarded<double>(start.moments.size())};
  const GinTrainParams params = params_of(c, inputs, state);
  const a2v::GinTrainPlan plan = a2v::make_gin_train_plan(params, c.device);
  cuda_on_cpu::process().device.multiprocessors = c.device.blocks;
  Guarded<float> workspace(plan.workspace_bytes() / sizeof(float));
  a2v::launch_gin_train(params, plan, {workspace.data(), nullptr}, nullptr);
  workspace.check();
  const auto take = [](const auto& array) {
    array.check();
    return std::vector(array.data(), array.data() + array.size());
  };
  return {take(state.parameters), take(state.exp_avg), take(state.exp_avg_sq),
          take(state.running),    take(state.losses),  take(state.moments)};
}

template <class T>
void require_same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) != 0) {
    throw cuda_on_cpu::Error("results depend on the schedule");
  }
}

void check(const Case& c, unsigned shuffled_schedules) {
  const Inputs inputs = random_inputs(c);
  Arrays<Plain> want = inputs.state;
  a2v::gin_train_cpu(params_of(c, inputs, want), 1);
  Arrays<Plain> first;
  const auto run = [&] {
    const Arrays<Plain> have = run_kernel(c, inputs);
    require_close(have.losses, want.losses, 1e-5, "losses");
    require_close(have.moments, want.moments, 1e-5, "moments");
    require_close(have.running, want.running, 1e-5, "running statistics");
    require_close(have.exp_avg, want.exp_avg, 1e-4, "first moments");
    require_close(have.exp_avg_sq, want.exp_avg_sq, 1e-4, "second moments");
    require_close(have.parameters, want.parameters, 1e-5, "parameters");
    if (first.parameters.empty()) first = have;
    require_same_bits(have.parameters, first.parameters);
    require_same_bits(have.losses, first.losses);
    require_same_bits(have.moments, first.moments);
    require_same_bits(have.running, first.running);
  };
  try {
    cuda_on_cpu::for_each_schedule(run, shuffled_schedules);
  } catch (const std::exception& error) {
    throw cuda_on_cpu::Error(std::string(c.name) + ": " + error.what());
  }
}

GinTrainConfig small_model() {
  return {.num_nodes = 7,
          .num_op_types = 5,
          .num_classes = 5,
          .hidden_dim = 32,
          .latent_dim = 4,
          .num_layers = 2,
          .num_mlp_layers = 2,
          .node_mixing = 0,
          .gated = false,
          .variational = true,
          .bilinear = false,
          .position_bias = false,
          .softmax = false,
          .logits = true,
          .elbo = false,
          .batch_mode = true,
          .beta = 1.0F,
          .dropout = 0.3F,
          .grad_clip = 5.0F};
}

GinTrainConfig every_option() {
  GinTrainConfig c = small_model();
  c.num_classes = 6;
  c.node_mixing = 20;
  c.gated = c.bilinear = c.position_bias = c.softmax = c.elbo = true;
  c.beta = 0.05F;
  return c;
}

template <class Change>
GinTrainConfig with(GinTrainConfig config, Change change) {
  change(config);
  return config;
}

std::vector<Case> cases() {
  using C = GinTrainConfig;
  constexpr std::size_t kShared = 227 << 10;
  const a2v::TrainDevice four{4, kShared, 64};
  const a2v::TrainDevice two{2, kShared, 64};
  const C frozen = with(small_model(), [](C& c) { c.batch_mode = false; });
  const C frozen_best = with(every_option(), [](C& c) { c.batch_mode = false; });
  const C large = with(every_option(), [](C& c) {
    c.num_nodes = c.num_op_types = 11;
    c.num_classes = 12;
    c.hidden_dim = 48;
    c.latent_dim = 6;
  });
  const C odd = with(small_model(), [](C& c) {
    c.num_nodes = 8;
    c.num_op_types = c.num_classes = 7;
    c.latent_dim = 5;
    c.num_layers = 1;
    c.num_mlp_layers = 3;
    c.grad_clip = 0.05F;
  });
  const C autoencoder = with(small_model(), [](C& c) {
    c.variational = c.logits = false;
    c.num_layers = 3;
    c.num_mlp_layers = 1;
  });
  return {
      {"one cell a block, batch statistics", small_model(), 1, 10, 4, false, four},
      {"one cell a block, frozen statistics", frozen, 1, 10, 4, false, four},
      {"every option", every_option(), 1, 10, 6, false, four},
      {"every option, frozen, injected", frozen_best, 1, 10, 6, true, four},
      {"several chunks", every_option(), 1, 47, 35, true, two},
      {"little shared memory", every_option(), 1, 35, 35, false, {2, 64 << 10, 64}},
      {"eleven nodes", large, 1, 10, 7, false, {3, kShared, 96}},
      {"odd sizes", odd, 1, 9, 6, true, {3, kShared, 64}},
      {"autoencoder, saturating loss", autoencoder, 1, 9, 4, false, four},
      {"models side by side", small_model(), 2, 7, 4, false, {7, kShared, 32}},
      {"more models than blocks", frozen, 3, 7, 4, false, two},
  };
}

// The widths of the real models, which the small ones do not reach.
Case real_widths() {
  GinTrainConfig config = every_option();
  config.hidden_dim = 128;
  config.latent_dim = 16;
  config.num_layers = 4;
  config.node_mixing = 256;
  return {"real widths", config, 1, 4, 4, false, {2, 227 << 10, a2v::kTrainThreads}};
}

}  // namespace

int main() {
  try {
    for (const Case& c : cases()) check(c, 2);
    check(real_widths(), 0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED: %s\n", error.what());
    return 1;
  }
  std::puts("gin_train_kernel_test passed");
}

// SPDX-License-Identifier: Apache-2.0
//
// Training steps without Python, for the sanitizers: every option in both modes, odd sizes, more
// threads than cells, several models. Checks what needs no second implementation: finite losses,
// equal bits on repetition, nearly equal losses on any number of threads, falling loss.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "gin_train/plan.h"

namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::exit(1);
}

template <class Number>
std::vector<Number> zeros(std::int64_t count) {
  return std::vector<Number>(static_cast<std::size_t>(count));
}

// Arrays of a call, exactly as long as they must be.
struct Call {
  a2v::GinTrainParams params;
  std::vector<std::int64_t> codes, order, seed;
  std::vector<double> learning_rate, moments;
  std::vector<float> parameters, exp_avg, exp_avg_sq, running, losses;

  Call(const a2v::GinTrainConfig& config, int models, std::int64_t cells, std::int64_t batch)
      : params{} {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-0.3F, 0.3F);
    const a2v::CellLayout layout{config.num_nodes, config.num_op_types};
    const a2v::GinParameterLayout places(config);
    const std::int64_t rows = 20;
    const std::int64_t steps = (cells + batch - 1) / batch;
    codes = zeros<std::int64_t>(rows * layout.words());
    for (std::int64_t row = 0; row < rows; ++row) {
      a2v::Cell cell;
      for (int v = 0; v < layout.num_nodes; ++v) {
        cell.preds[v] = static_cast<std::uint16_t>(random() & ((1U << v) - 1));
        cell.label[v] =
            static_cast<std::uint8_t>(random() % (static_cast<unsigned>(layout.num_op_types) + 1));
      }
      pack_cell(layout, cell,
                reinterpret_cast<std::uint64_t*>(codes.data()) + row * layout.words());
    }
    order = zeros<std::int64_t>(models * cells);
    for (std::int64_t& row : order) row = static_cast<std::int64_t>(random() % rows);
    seed = zeros<std::int64_t>(models);
    learning_rate.assign(static_cast<std::size_t>(steps), 3e-3);
    parameters = zeros<float>(std::int64_t{models} * places.size);
    for (float& value : parameters) value = uniform(random);
    exp_avg = exp_avg_sq = zeros<float>(std::int64_t{models} * places.size);
    running.assign(static_cast<std::size_t>(models * config.num_norms() * 2 * config.hidden_dim),
                   1.0F);
    losses = zeros<float>(models * steps * a2v::kGinTrainLosses);
    moments = zeros<double>(std::int64_t{models} * 2 * config.num_nodes * config.latent_dim);
    params.config = config;
    params.layout = layout;
    params.num_models = models;
    params.num_cells = rows;
    params.cells_in_call = cells;
    params.batch_size = batch;
  }

  Call run(int threads) const {
    Call copy = *this;
    a2v::GinTrainParams& p = copy.params;
    p.codes = copy.codes.data();
    p.order = copy.order.data();
    p.learning_rate = copy.learning_rate.data();
    p.seed = copy.seed.data();
    p.parameters = copy.parameters.data();
    p.exp_avg = copy.exp_avg.data();
    p.exp_avg_sq = copy.exp_avg_sq.data();
    p.running = copy.running.data();
    p.losses = copy.losses.data();
    p.moments = copy.moments.data();
    a2v::gin_train_cpu(p, threads);
    return copy;
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check(const a2v::GinTrainConfig& config, int models, std::int64_t cells, std::int64_t batch) {
  const Call call(config, models, cells, batch);
  const Call alone = call.run(1);
  for (const float loss : alone.losses) expect(std::isfinite(loss), "losses are finite");
  for (const int threads : {2, 3, 9}) {
    const Call first = call.run(threads);
    const Call second = call.run(threads);
    expect(same(first.parameters, second.parameters), "the same parameters twice");
    expect(same(first.losses, second.losses), "the same losses twice");
    for (std::size_t m = 0; m < alone.losses.size(); m += alone.losses.size() / call.seed.size()) {
      const float difference = std::fabs(first.losses[m] - alone.losses[m]);
      expect(difference <= 1e-3F * std::fabs(alone.losses[m]), "losses on any number of threads");
    }
  }
}

void check_learning(a2v::GinTrainConfig config) {
  config.dropout = 0.0F;
  const Call call = Call(config, 1, 16 * 60, 16).run(2);
  const std::size_t last = call.losses.size() - a2v::kGinTrainLosses;
  expect(call.losses[last] < 0.8F * call.losses[0], "the loss falls");
}

}  // namespace

int main() {
  const a2v::GinTrainConfig plain{
      .num_nodes = 5,
      .num_op_types = 3,
      .num_classes = 3,
      .hidden_dim = 24,
      .latent_dim = 6,
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
      .grad_clip = 5.0F,
  };
  a2v::GinTrainConfig best = plain;
  best.num_classes = 4;
  best.node_mixing = 21;
  best.gated = best.bilinear = best.position_bias = best.softmax = best.elbo = true;
  best.latent_dim = 19;
  best.hidden_dim = 72;
  a2v::GinTrainConfig wide = plain;
  wide.num_nodes = 16;
  wide.num_op_types = 40;
  wide.num_classes = 40;
  wide.num_mlp_layers = 1;
  wide.logits = wide.variational = false;
  for (a2v::GinTrainConfig config : {plain, best, wide}) {
    for (const bool batch_mode : {true, false}) {
      config.batch_mode = batch_mode;
      check(config, 1, 23, 8);
      check(config, 3, 23, 8);
      check(config, 1, 70, 60);  // more tiles than are decoded together
    }
  }
  check_learning(plain);
  check_learning(best);
  std::puts("gin_train_test: ok");
  return 0;
}

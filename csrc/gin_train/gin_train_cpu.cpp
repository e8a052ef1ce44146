// SPDX-License-Identifier: Apache-2.0
// gin_train on a CPU: memory, teams, choice of the instruction set. See plan.h.

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "common/cpu_features.h"
#include "gin_train/plan.h"

namespace a2v {
namespace {

constexpr int kWidth = 16;  // of a panel
constexpr std::align_val_t kAlignment{64};
constexpr std::size_t kHugePage = std::size_t{2} << 20;

int panels(int width) { return (width + kWidth - 1) / kWidth; }

// Arrays that live as long as the call.
class Arena {
 public:
  // Zeroed.
  template <class Number>
  Number* take(std::ptrdiff_t count) {
    const std::size_t bytes =
        sizeof(Number) * static_cast<std::size_t>(std::max<std::ptrdiff_t>(count, 1));
    std::memset(take_bytes(bytes), 0, bytes);
    return static_cast<Number*>(blocks_.back().get());
  }

  // Uninitialised and, where the system has them, on huge pages: for what is larger than the
  // caches. The thread that works on it touches it first; clearing all of it before the team
  // starts took as long as a fifth of a step.
  float* take_large(std::ptrdiff_t count) {
    const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(count);
    if (bytes < 2 * kHugePage) {
      return static_cast<float*>(take_bytes(bytes));
    }
    std::size_t room = bytes + kHugePage;
    void* first = take_bytes(room);
    std::align(kHugePage, bytes, first, room);
#if defined(__linux__)
    madvise(first, bytes, MADV_HUGEPAGE);  // a wish
#endif
    return static_cast<float*>(first);
  }

 private:
  void* take_bytes(std::size_t bytes) {
    blocks_.emplace_back(::operator new(bytes, kAlignment));
    return blocks_.back().get();
  }

  struct Free {
    void operator()(void* block) const { ::operator delete(block, kAlignment); }
  };
  std::vector<std::unique_ptr<void, Free>> blocks_;
};

// The arguments of model g alone.
GinTrainParams of_model(const GinTrainParams& all, const GinParameterLayout& layout, int g) {
  const GinTrainConfig& config = all.config;
  const std::int64_t steps = (all.cells_in_call + all.batch_size - 1) / all.batch_size;
  const std::int64_t latents = std::int64_t{config.num_nodes} * config.latent_dim;
  const std::int64_t drawn = g * all.cells_in_call * latents;
  const std::int64_t first = std::int64_t{g} * layout.size;
  GinTrainParams one = all;
  one.num_models = 1;
  one.order += g * all.cells_in_call;
  one.seed += g;
  one.noise = all.noise == nullptr ? nullptr : all.noise + drawn;
  one.keep = all.keep == nullptr ? nullptr : all.keep + drawn;
  one.parameters += first;
  one.exp_avg += first;
  one.exp_avg_sq += first;
  one.running += std::int64_t{g} * config.num_norms() * 2 * config.hidden_dim;
  one.losses += g * steps * kGinTrainLosses;
  one.moments += g * 2 * latents;
  return one;
}

// A team and its memory.
class TeamMemory {
 public:
  TeamMemory(const GinTrainParams& params, int threads)
      : barrier_(threads), team_{.params = params, .layout = GinParameterLayout(params.config)} {
    team_.threads = threads;
    team_.barrier = &barrier_;
    set_sizes();
    place_tile();
    for (int s = 0; s < team_.stages; ++s) {
      take_stage(s);
    }
    take_decoder_parameters();
    team_.thread = arena_.take<TrainThread>(threads);
    for (int t = 0; t < threads; ++t) {
      take_thread(team_.thread[t]);
    }
  }

  // Takes on another model, whose configuration is the same.
  TrainTeam& start(const GinTrainParams& params) {
    team_.params = params;
    for (int t = 0; t < team_.threads; ++t) {
      std::fill_n(team_.thread[t].moments, 2 * latents(), 0.0);
    }
    return team_;
  }

  void finish() {
    std::fill_n(team_.params.moments, 2 * latents(), 0.0);
    for (int t = 0; t < team_.threads; ++t) {
      for (int i = 0; i < 2 * latents(); ++i) {
        team_.params.moments[i] += team_.thread[t].moments[i];
      }
    }
  }

 private:
  const GinTrainConfig& config() const { return team_.params.config; }
  int latents() const { return config().num_nodes * config().latent_dim; }

  void set_sizes() {
    team_.stages = config().num_norms();
    team_.hidden_panels = panels(config().hidden_dim);
    team_.latent_panels = panels(config().latent_dim);
    team_.class_panels = panels(config().num_classes);
    team_.mixing_panels = panels(config().node_mixing);
    team_.flat_panels = panels(latents());
    team_.tile_rows = kTileCells * config().num_nodes;
    team_.panel = std::ptrdiff_t{kWidth} * team_.tile_rows;
    team_.group_panel = std::ptrdiff_t{kWidth} * kTileCells * kGroupTiles;
  }

  void place_tile() {
    std::ptrdiff_t next = 0;
    const auto take = [&](int count) {
      const std::ptrdiff_t at = next;
      next += count * team_.panel;
      return at;
    };
    for (int s = 0; s < team_.stages; ++s) {
      team_.tile.input[s] = take(s == 0 ? panels(config().num_op_types) : team_.hidden_panels);
      team_.tile.output[s] = take(team_.hidden_panels);
    }
    team_.tile.input[team_.stages] = take(team_.hidden_panels);
    team_.tile.gradient = take(team_.hidden_panels);
    team_.tile.size = next;
  }

  PackedLinear take_linear(GinParameterLayout::Linear parameter, int out, int in) {
    PackedLinear linear{};
    linear.in = in;
    linear.out = out;
    linear.in_panels = panels(in);
    linear.out_panels = panels(out);
    linear.parameter = parameter;
    linear.forward = arena_.take<float>(std::ptrdiff_t{linear.out_panels} * in * kWidth);
    linear.backward = arena_.take<float>(std::ptrdiff_t{linear.in_panels} * out * kWidth);
    linear.bias = arena_.take<float>(linear.out_panels * kWidth);
    return linear;
  }

  void take_stage(int index) {
    const int layer = index / config().num_mlp_layers;
    const int k = index % config().num_mlp_layers;
    const int in = k == 0 ? config().input_width(layer) : config().hidden_dim;
    const std::ptrdiff_t width = team_.hidden_panels * kWidth;
    Stage& stage = team_.stage[index];
    stage.linear = take_linear(layout().linear[layer][k], config().hidden_dim, in);
    stage.norm = layout().norm[layer][k];
    stage.gamma = arena_.take<float>(width);
    stage.beta = arena_.take<float>(width);
    stage.mean_part = arena_.take<double>(width * team_.threads);
    stage.m2_part = arena_.take<double>(width * team_.threads);
    stage.sum_part = arena_.take<double>(2 * width * team_.threads);
    if (k == 0) {
      team_.gates[layer] = arena_.take<float>(2 * kWidth * stage.linear.in_panels);
    }
  }

  void take_decoder_parameters() {
    const int latent = config().latent_dim;
    const int parts = config().variational ? 2 : 1;
    // Offsets of the heads are looked up in the layout, part by part.
    team_.heads = take_linear({-1, -1}, parts * team_.latent_panels * kWidth, config().hidden_dim);
    team_.op_head = take_linear(layout().op_head, config().num_classes, latent);
    team_.mixer_in = take_linear(layout().mixer_in, config().node_mixing, latents());
    team_.mixer_out = take_linear(layout().mixer_out, latents(), config().node_mixing);
    const std::ptrdiff_t square = std::ptrdiff_t{team_.latent_panels} * latent * kWidth;
    team_.bilinear_forward = arena_.take<float>(square);
    team_.bilinear_backward = arena_.take<float>(square);
    team_.node_bias = arena_.take<float>(config().num_nodes * team_.class_panels * kWidth);
    team_.edge_bias = arena_.take<float>(config().num_nodes * kWidth);
  }

  void take_thread(TrainThread& thread) {
    const std::int64_t cells = (team_.params.batch_size + team_.threads - 1) / team_.threads;
    const std::int64_t tiles = (cells + kTileCells - 1) / kTileCells;
    const std::ptrdiff_t width = team_.hidden_panels * kWidth;
    thread.cells = arena_.take<TrainCell>(cells);
    thread.activations = arena_.take_large(team_.tile.size * (config().batch_mode ? tiles : 1));
    thread.gradient = arena_.take<float>(layout().size + kWidth);
    thread.node_bias = arena_.take<float>(config().num_nodes * team_.class_panels * kWidth);
    thread.edge_bias = arena_.take<float>(config().num_nodes * kWidth);
    thread.scratch = arena_.take<float>(team_.hidden_panels * team_.panel);
    thread.scratch2 = arena_.take<float>(
        std::max(team_.hidden_panels, panels(config().num_op_types)) * team_.panel);
    thread.columns = arena_.take<float>((2 * width + 1) * ((team_.tile_rows + 1) / 2));
    thread.column_mean = arena_.take<float>(width);
    thread.column_m2 = arena_.take<float>(width);
    thread.double_mean = arena_.take<double>(width);
    thread.double_m2 = arena_.take<double>(width);
    thread.moments = arena_.take<double>(2 * latents());
    for (int s = 0; s < team_.stages; ++s) {
      float* columns = arena_.take<float>(6 * width);
      thread.norm[s] = {columns,
                        columns + width,
                        columns + 2 * width,
                        columns + 3 * width,
                        columns + 4 * width,
                        columns + 5 * width};
    }
    take_scratch(thread.decoder);
  }

  void take_scratch(DecoderScratch& scratch) {
    const int tiles = config().batch_mode ? kGroupTiles : 1;
    const std::ptrdiff_t latent = team_.latent_panels * team_.panel;
    const std::ptrdiff_t flat = team_.flat_panels * team_.group_panel;
    const std::ptrdiff_t mixing = team_.mixing_panels * team_.group_panel;
    scratch.posterior = arena_.take<float>(2 * latent * tiles);
    scratch.z = arena_.take<float>(latent * tiles);
    scratch.mixed = arena_.take<float>(latent * tiles);
    scratch.gradient = arena_.take<float>(latent * tiles);
    scratch.flat = arena_.take<float>(flat);
    scratch.hidden = arena_.take<float>(mixing);
    scratch.hidden_gradient = arena_.take<float>(mixing);
    scratch.flat_out = arena_.take<float>(flat);
    scratch.flat_gradient = arena_.take<float>(flat);
    scratch.source = arena_.take<float>(latent);
    scratch.source_gradient = arena_.take<float>(latent);
    scratch.logits = arena_.take<float>(team_.class_panels * team_.panel);
    scratch.heads = arena_.take<float>(2 * latent);
    scratch.transposed = arena_.take<float>(std::ptrdiff_t{config().latent_dim} * kWidth);
    scratch.edge = arena_.take<float>(config().num_nodes * kWidth);
    scratch.noise = arena_.take<float>(std::ptrdiff_t{latents()} * kTileCells * tiles);
    scratch.keep = arena_.take<float>(std::ptrdiff_t{latents()} * kTileCells * tiles);
  }

  const GinParameterLayout& layout() const { return team_.layout; }

  Arena arena_;
  Barrier barrier_;
  TrainTeam team_;
};

using Member = void (*)(TrainTeam&, int);

Member member_for(SimdLevel level) {
#if defined(__x86_64__)
  if (level == SimdLevel::kAvx512) {
    return &avx512::train_member;
  }
  if (level == SimdLevel::kAvx2) {
    return &avx2::train_member;
  }
#endif
  return &scalar::train_member;
}

// All models, one after another, by one team.
void train_together(const GinTrainParams& params, int threads, Member member) {
  const GinParameterLayout layout(params.config);
  TeamMemory memory(params, threads);
  for (int g = 0; g < params.num_models; ++g) {
    struct Context {
      TrainTeam& team;
      Member member;
    } context{memory.start(of_model(params, layout, g)), member};
    run_team(
        threads,
        [](void* at, int index) {
          const auto* own = static_cast<Context*>(at);
          own->member(own->team, index);
        },
        &context);
    memory.finish();
  }
}

// At least as many models as threads: each thread trains its own.
void train_apart(const GinTrainParams& params, int threads, Member member) {
  struct Context {
    const GinTrainParams& params;
    GinParameterLayout layout;
    Member member;
    std::vector<std::unique_ptr<TeamMemory>> memory;
  } context{params, GinParameterLayout(params.config), member, {}};
  for (int t = 0; t < threads; ++t) {
    context.memory.push_back(std::make_unique<TeamMemory>(params, 1));
  }
  run_team(
      threads,
      [](void* at, int index) {
        auto* own = static_cast<Context*>(at);
        TeamMemory& memory = *own->memory[static_cast<std::size_t>(index)];
        const int step = static_cast<int>(own->memory.size());
        for (int g = index; g < own->params.num_models; g += step) {
          own->member(memory.start(of_model(own->params, own->layout, g)), 0);
          memory.finish();
        }
      },
      &context);
}

}  // namespace

void gin_train_cpu(const GinTrainParams& params, int threads) {
  const Member member = member_for(simd_level());
  const bool apart = threads > 1 && params.num_models >= threads;
  const std::int64_t useful = std::min<std::int64_t>(threads, params.batch_size);
  if (apart) {
    train_apart(params, threads, member);
  } else {
    train_together(params, static_cast<int>(useful), member);
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_train: what one member of a team does, step by step.
//
// With batch statistics the team meets after every stage, forward and backward, to merge the
// norms' sums; with frozen statistics a tile runs through all stages and back on its own. Merging
// is done by every member for itself, in the order of the threads: same sums, no second barrier.
//
// Profile (2026-11-25, EPYC Zen 3, AVX2, one thread of a busy machine, processor time,
// NAS-Bench-101 under recipe released, batch statistics): 76 to 80 us a cell at 32, 256 and 1,024
// cells; with the calls of multiply and outer taken out 17 to 20 us are left (sums over neighbours,
// statistics and gradients of the norms, pairs and losses of the decoder, cells, noise, Adam).
// Products thus run at the rate of a large matrix product, and a step cannot come above three
// quarters to four fifths of it. Several threads share the memory behind the caches, through which
// 1,024 cells take eight matrices of 3.7 MB a stage: read h, write x and h, and back read h, g, x
// and the next h, write g. Fresh pages of a call cost 2 to 7 ms of the system's time.
#pragma once

#include "common/gemm.h"
#include "gin_train/decoder_kernel.h"
#include "gin_train/encoder_kernel.h"
#include "gin_train/loss_kernel.h"
#include "gin_train/update_kernel.h"

namespace a2v::A2V_SIMD {

inline void clear(float* p, std::ptrdiff_t count) {
  __builtin_memset(p, 0, sizeof(float) * static_cast<std::size_t>(count));
}
inline void clear(double* p, std::ptrdiff_t count) {
  __builtin_memset(p, 0, sizeof(double) * static_cast<std::size_t>(count));
}

class Member {
 public:
  Member(TrainTeam& team, int index) : team_(team), index_(index), thread_(team.thread[index]) {}

  void run() {
    const std::int64_t batch = team_.params.batch_size;
    const std::int64_t cells = team_.params.cells_in_call;
    for (std::int64_t step = 0; step * batch < cells; ++step) {
      const std::int64_t left = cells - step * batch;
      begin(step, left < batch ? left : batch);
      if (team_.params.config.batch_mode) {
        pass_with_batch_statistics();
      } else {
        pass_with_frozen_statistics();
      }
      finish();
    }
  }

 private:
  int width() const { return team_.hidden_panels * kLanes; }
  int tiles() const { return (thread_.num_cells + kTileCells - 1) / kTileCells; }
  bool batch_mode() const { return team_.params.config.batch_mode; }

  Tile tile(int index) const {
    const int first = index * kTileCells;
    const int left = thread_.num_cells - first;
    const int cells = left < kTileCells ? left : kTileCells;
    return {thread_.first_cell + first, cells, cells * team_.params.config.num_nodes,
            thread_.cells + first,
            thread_.activations + (batch_mode() ? team_.tile.size * index : 0)};
  }

  void begin(std::int64_t step, std::int64_t batch) {
    step_ = step;
    rows_ = static_cast<double>(batch * team_.params.config.num_nodes);
    scale_ = loss_scale(team_.params.config, batch);
    split_cells(team_, step, index_);
    read_cells(team_, step, index_);
    pack_parameters(team_, index_);
    clear(thread_.gradient, team_.layout.size + kLanes);
    clear(thread_.node_bias, team_.params.config.num_nodes * team_.class_panels * kLanes);
    clear(thread_.edge_bias, team_.params.config.num_nodes * kLanes);
    for (double& part : thread_.loss) {
      part = 0.0;
    }
    for (int s = 0; s < team_.stages; ++s) {
      clear(sums(s), 2 * width());
      clear(team_.stage[s].mean_part + index_ * width(), width());
      clear(team_.stage[s].m2_part + index_ * width(), width());
    }
    team_.barrier->wait();
  }

  // -- the passes --------------------------------------------------------------------------

  void pass_with_batch_statistics() {
    for (int s = 0; s < team_.stages; ++s) {
      for (int t = 0; t < tiles(); ++t) {
        forward_stage(team_, thread_, tile(t), s);
        add_statistics(tile(t), s, t * kTileCells * team_.params.config.num_nodes);
      }
      team_.barrier->wait();
      merge_statistics(s);
    }
    const int last = team_.stages - 1;
    for (int t = 0; t < tiles(); t += kGroupTiles) {
      const Group group = decode(t, tiles() - t < kGroupTiles ? tiles() - t : kGroupTiles);
      for (int i = 0; i < group.tiles; ++i) {
        add_norm_sums(team_, thread_, group.tile[i], last, sums(last));
      }
    }
    for (int s = last; s >= 0; --s) {
      team_.barrier->wait();
      merge_sums(s);
      for (int t = 0; t < tiles(); ++t) {
        backward_stage(team_, thread_, tile(t), s);
        if (s > 0) {
          add_norm_sums(team_, thread_, tile(t), s - 1, sums(s - 1));
        }
      }
    }
  }

  void pass_with_frozen_statistics() {
    for (int s = 0; s < team_.stages; ++s) {
      const float* running = team_.params.running + s * 2 * team_.params.config.hidden_dim;
      NormColumns& norm = thread_.norm[s];
      for (int i = 0; i < team_.params.config.hidden_dim; ++i) {
        norm.mean[i] = running[i];
        norm.rstd[i] =
            1.0F / __builtin_sqrtf(running[team_.params.config.hidden_dim + i] + kNormTiny);
      }
      finish_norm(s);
    }
    for (int t = 0; t < tiles(); ++t) {
      for (int s = 0; s < team_.stages; ++s) {
        forward_stage(team_, thread_, tile(t), s);
      }
      decode(t, 1);
      for (int s = team_.stages - 1; s >= 0; --s) {
        add_norm_sums(team_, thread_, tile(t), s, sums(s));
        backward_stage(team_, thread_, tile(t), s);
      }
    }
  }

  Group decode(int first, int count) {
    Group group{};
    group.tiles = count;
    for (int i = 0; i < count; ++i) {
      group.tile[i] = tile(first + i);
      group.cells += group.tile[i].cells;
    }
    draw_noise(team_, step_, group.tile[0].first_cell, group.cells, thread_.decoder.noise,
               thread_.decoder.keep);
    decode_group(team_, thread_, group, scale_);
    return group;
  }

  // -- the norms ---------------------------------------------------------------------------

  double* sums(int stage) const { return team_.stage[stage].sum_part + index_ * 2 * width(); }

  double rows_of(int thread) const {
    return static_cast<double>(team_.thread[thread].num_cells) * team_.params.config.num_nodes;
  }

  // The thread's statistics take in a tile's; `rows` came before it.
  void add_statistics(const Tile& tile, int stage, int rows) {
    column_statistics(team_, tile, stage, thread_.column_mean, thread_.column_m2);
    merge_moments(team_.stage[stage].mean_part + index_ * width(),
                  team_.stage[stage].m2_part + index_ * width(), rows, thread_.column_mean,
                  thread_.column_m2, tile.rows, width());
  }

  void merge_statistics(int stage) {
    clear(thread_.double_mean, width());
    clear(thread_.double_m2, width());
    double count = 0.0;
    for (int t = 0; t < team_.threads; ++t) {
      if (rows_of(t) > 0.0) {
        merge_moments(thread_.double_mean, thread_.double_m2, count,
                      team_.stage[stage].mean_part + t * width(),
                      team_.stage[stage].m2_part + t * width(), rows_of(t), width());
        count += rows_of(t);
      }
    }
    NormColumns& norm = thread_.norm[stage];
    for (int i = 0; i < width(); ++i) {
      const double variance = thread_.double_m2[i] / rows_;
      norm.mean[i] = static_cast<float>(thread_.double_mean[i]);
      norm.rstd[i] =
          static_cast<float>(1.0 / __builtin_sqrt(variance + static_cast<double>(kNormTiny)));
    }
    finish_norm(stage);
    if (index_ == 0) {
      update_running(stage);
    }
  }

  void finish_norm(int stage) {
    NormColumns& norm = thread_.norm[stage];
    for (int p = 0; p < team_.hidden_panels; ++p) {
      const std::ptrdiff_t at = p * kLanes;
      const V16 scale = load(team_.stage[stage].gamma + at) * load(norm.rstd + at);
      store(norm.scale + at, scale);
      store(norm.shift + at, load(team_.stage[stage].beta + at) - load(norm.mean + at) * scale);
    }
  }

  // Running variance is the unbiased one, as torch has it.
  void update_running(int stage) {
    const int hidden = team_.params.config.hidden_dim;
    float* running = team_.params.running + stage * 2 * hidden;
    for (int i = 0; i < hidden; ++i) {
      const double fresh[2] = {thread_.double_mean[i], thread_.double_m2[i] / (rows_ - 1.0)};
      for (int k = 0; k < 2; ++k) {
        const double old = static_cast<double>(running[k * hidden + i]);
        running[k * hidden + i] =
            static_cast<float>((1.0 - kNormMomentum) * old + kNormMomentum * fresh[k]);
      }
    }
  }

  void merge_sums(int stage) {
    NormColumns& norm = thread_.norm[stage];
    for (int i = 0; i < width(); ++i) {
      double plain = 0.0;
      double slope = 0.0;
      for (int t = 0; t < team_.threads; ++t) {
        const double* part = team_.stage[stage].sum_part + t * 2 * width();
        plain += part[i];
        slope += part[width() + i];
      }
      const double rstd = static_cast<double>(norm.rstd[i]);
      norm.mean_g[i] = static_cast<float>(plain / rows_);
      norm.slope_g[i] = static_cast<float>(rstd * rstd * slope / rows_);
    }
  }

  // -- the end of a step -------------------------------------------------------------------

  // Gradients that the passes kept apart: norms, position biases.
  void collect_gradients() {
    const GinTrainConfig& config = team_.params.config;
    float* gradient = thread_.gradient;
    for (int s = 0; s < team_.stages; ++s) {
      for (int i = 0; i < config.hidden_dim; ++i) {
        const double rstd = static_cast<double>(thread_.norm[s].rstd[i]);
        gradient[team_.stage[s].norm.weight + i] = static_cast<float>(sums(s)[width() + i] * rstd);
        gradient[team_.stage[s].norm.bias + i] = static_cast<float>(sums(s)[i]);
      }
    }
    for (int v = 0; config.position_bias && v < config.num_nodes; ++v) {
      for (int c = 0; c < config.num_classes; ++c) {
        gradient[team_.layout.node_bias + v * config.num_classes + c] =
            thread_.node_bias[v * team_.class_panels * kLanes + c];
      }
      for (int j = 0; j < config.num_nodes; ++j) {
        gradient[team_.layout.edge_bias + v * config.num_nodes + j] =
            thread_.edge_bias[v * kLanes + j];
      }
    }
  }

  void finish() {
    collect_gradients();
    team_.barrier->wait();
    reduce_gradient(team_, index_);
    team_.barrier->wait();
    double squared = 0.0;
    for (int t = 0; t < team_.threads; ++t) {
      squared += team_.thread[t].squared_norm;
    }
    const float norm = static_cast<float>(__builtin_sqrt(squared));
    const float clip = team_.params.config.grad_clip / (norm + 1e-6F);
    const double taken =
        static_cast<double>(team_.params.first_step) + static_cast<double>(step_) + 1.0;
    const double rate = team_.params.learning_rate[step_];
    const AdamStep adam{clip < 1.0F ? clip : 1.0F,
                        static_cast<float>(rate / (1.0 - __builtin_pow(0.9, taken))),
                        static_cast<float>(__builtin_sqrt(1.0 - __builtin_pow(0.999, taken)))};
    update_parameters(team_, index_, adam);
    if (index_ == 0) {
      write_losses(norm);
    }
    team_.barrier->wait();
  }

  void write_losses(float norm) {
    double part[3] = {};
    for (int t = 0; t < team_.threads; ++t) {
      for (int k = 0; k < 3; ++k) {
        part[k] += team_.thread[t].loss[k];
      }
    }
    const double scaled[3] = {part[0] * static_cast<double>(scale_.node),
                              part[1] * static_cast<double>(scale_.edge),
                              part[2] * static_cast<double>(scale_.kl)};
    float* losses = team_.params.losses + step_ * kGinTrainLosses;
    losses[0] = static_cast<float>(scaled[0] + scaled[1] + scaled[2]);
    for (int k = 0; k < 3; ++k) {
      losses[1 + k] = static_cast<float>(scaled[k]);
    }
    losses[4] = norm;
  }

  TrainTeam& team_;
  const int index_;
  TrainThread& thread_;
  std::int64_t step_ = 0;
  double rows_ = 0.0;
  LossScale scale_{};
};

void train_member(TrainTeam& team, int thread) { Member(team, thread).run(); }

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// gin_train: the cells and the random numbers of a step. Compiled once, for the baseline.

#include <algorithm>
#include <iterator>

#include "common/philox.h"
#include "gin_train/plan.h"

namespace a2v {
namespace {

std::int64_t cells_of_step(const GinTrainParams& params, std::int64_t step) {
  return std::min(params.batch_size, params.cells_in_call - step * params.batch_size);
}

// value(i) of elements first .. first + count - 1 of a stream, from blocks of four.
template <class Fill>
void for_blocks(const GinTrainParams& params, std::int64_t step, PhiloxStream stream,
                std::int64_t first, std::int64_t count, const Fill& fill) {
  const auto seed = static_cast<std::uint64_t>(*params.seed);
  const std::uint64_t counter = params.first_step + static_cast<std::uint64_t>(step);
  for (std::int64_t block = first / 4; block * 4 < first + count; ++block) {
    const PhiloxWords words = philox(seed, counter, stream, static_cast<std::uint32_t>(block));
    fill(words, block * 4 - first, std::max<std::int64_t>(0, first - block * 4),
         std::min<std::int64_t>(4, first + count - block * 4));
  }
}

}  // namespace

void split_cells(const TrainTeam& team, std::int64_t step, int thread) {
  const std::int64_t cells = cells_of_step(team.params, step);
  const std::int64_t first = cells * thread / team.threads;
  const std::int64_t last = cells * (thread + 1) / team.threads;
  team.thread[thread].first_cell = static_cast<int>(first);
  team.thread[thread].num_cells = static_cast<int>(last - first);
}

void read_cells(const TrainTeam& team, std::int64_t step, int thread) {
  const GinTrainParams& params = team.params;
  const TrainThread& own = team.thread[thread];
  const std::int64_t* order = params.order + step * params.batch_size + own.first_cell;
  const auto* codes = reinterpret_cast<const std::uint64_t*>(params.codes);
  for (int c = 0; c < own.num_cells; ++c) {
    const Cell cell = unpack_cell(params.layout, codes + order[c] * params.layout.words());
    TrainCell& out = own.cells[c];
    std::copy(std::begin(cell.preds), std::end(cell.preds), out.preds);
    std::copy(std::begin(cell.label), std::end(cell.label), out.label);
    successors(params.layout, cell, out.succs);
  }
}

void draw_noise(const TrainTeam& team, std::int64_t step, int first_cell, int num_cells,
                float* noise, float* keep) {
  const GinTrainParams& params = team.params;
  const GinTrainConfig& config = params.config;
  const std::int64_t size = config.num_nodes * config.latent_dim;
  const std::int64_t first = first_cell * size;
  const std::int64_t count = num_cells * size;
  const std::int64_t given = step * params.batch_size * size + first;
  if (!config.batch_mode) {
    return;
  }
  if (config.variational && params.noise != nullptr) {
    std::copy_n(params.noise + given, count, noise);
  } else if (config.variational) {
    for_blocks(params, step, PhiloxStream::kNoise, first, count,
               [&](const PhiloxWords& words, std::int64_t at, std::int64_t from, std::int64_t to) {
                 const PhiloxNormals normals = philox_normals(words);
                 std::copy(normals.value + from, normals.value + to, noise + at + from);
               });
  }
  if (config.dropout <= 0.0F) {
    return;
  }
  const float factor = 1.0F / (1.0F - config.dropout);
  if (params.keep != nullptr) {
    std::transform(params.keep + given, params.keep + given + count, keep,
                   [=](std::uint8_t kept) { return kept != 0 ? factor : 0.0F; });
    return;
  }
  const std::uint32_t threshold = dropout_threshold(static_cast<double>(config.dropout));
  for_blocks(params, step, PhiloxStream::kDropout, first, count,
             [&](const PhiloxWords& words, std::int64_t at, std::int64_t from, std::int64_t to) {
               for (std::int64_t i = from; i < to; ++i) {
                 keep[at + i] = words.word[i] >= threshold ? factor : 0.0F;
               }
             });
}

}  // namespace a2v

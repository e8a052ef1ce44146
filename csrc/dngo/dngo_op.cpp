// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::dngo_* on the CPU: checks, allocation, threads, the best K. Schemas
// in library.cpp.

#include "dngo/dngo_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/best_keys.h"
#include "common/check.h"
#include "common/cpu_features.h"
#include "dngo/dngo_cpu.h"

namespace {

using namespace a2v::dngo_ops;

// Candidates of one task: some 0.5 ms, and a multiple of every tile.
constexpr std::int64_t kChunk = 2048;

struct Kernels {
  decltype(&a2v::scalar::dngo_fit) fit;
  decltype(&a2v::scalar::dngo_acquire_pack) pack;
  decltype(&a2v::scalar::dngo_acquire) acquire;
};

Kernels kernels() {
#if defined(__x86_64__)
  switch (a2v::simd_level()) {
    case a2v::SimdLevel::kAvx512:
      return {&a2v::avx512::dngo_fit, &a2v::avx512::dngo_acquire_pack, &a2v::avx512::dngo_acquire};
    case a2v::SimdLevel::kAvx2:
      return {&a2v::avx2::dngo_fit, &a2v::avx2::dngo_acquire_pack, &a2v::avx2::dngo_acquire};
    case a2v::SimdLevel::kScalar:
      break;
  }
#endif
  return {&a2v::scalar::dngo_fit, &a2v::scalar::dngo_acquire_pack, &a2v::scalar::dngo_acquire};
}

std::tuple<Tensor, Tensor> dngo_draw(const Tensor& seed, std::int64_t num_inputs,
                                     std::int64_t num_hidden, std::int64_t num_epochs,
                                     std::int64_t num_points) {
  const DrawCall call = prepare_draw(seed, num_inputs, num_hidden, num_epochs, num_points);
  torch::stable::parallel_for(0, seed.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t s = first; s < last; ++s) {
      a2v::dngo_draw(call.params, s);
    }
  });
  return {call.parameters, call.order};
}

Tensor dngo_fit(const Tensor& parameters, const Tensor& points, const Tensor& targets,
                const Tensor& order, std::int64_t num_hidden, std::int64_t batch_size,
                double learning_rate) {
  const FitCall call =
      prepare_fit(parameters, points, targets, order, num_hidden, batch_size, learning_rate);
  const a2v::DngoFitParams& params = call.params;
  A2V_CHECK(std::all_of(params.order, params.order + call.order.numel(),
                        [&](std::int32_t row) { return row >= 0 && row < params.num_points; }),
            "order: holds a row outside 0..", params.num_points - 1);
  const Kernels run = kernels();
  torch::stable::parallel_for(0, points.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> workspace(static_cast<std::size_t>(a2v::dngo_fit_floats(params.layout)));
    for (std::int64_t s = first; s < last; ++s) {
      run.fit(params, s, workspace.data());
    }
  });
  return call.losses;
}

Tensor dngo_evidence(const Tensor& eigenvalue, const Tensor& energy, const Tensor& residual,
                     const Tensor& start, std::int64_t num_points, std::int64_t num_hidden,
                     bool released) {
  const EvidenceCall call =
      prepare_evidence(eigenvalue, energy, residual, start, num_points, num_hidden, released);
  torch::stable::parallel_for(0, eigenvalue.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t s = first; s < last; ++s) {
      a2v::dngo_evidence(call.params, s);
    }
  });
  return call.optimum;
}

// The best K of every chunk of every seed, in keys [S, chunks, K].
void search_chunks(const a2v::DngoAcquireParams& params, std::int64_t seeds, std::int64_t chunks,
                   std::uint64_t* keys) {
  const Kernels run = kernels();
  torch::stable::parallel_for(
      0, seeds * chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
        std::vector<float> workspace(
            static_cast<std::size_t>(a2v::dngo_acquire_floats(params.layout)));
        std::vector<float> scores(static_cast<std::size_t>(kChunk));
        std::int64_t packed = -1;
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const std::int64_t s = task / chunks;
          const std::int64_t first = task % chunks * kChunk;
          const std::int64_t last = std::min(first + kChunk, params.num_candidates);
          if (packed != s) {
            run.pack(params, s, workspace.data());
            packed = s;
          }
          run.acquire(params, s, first, last, workspace.data(), scores.data());
          a2v::BestKeys best(keys + task * params.num_results, params.num_results);
          const std::uint8_t* visited =
              params.visited == nullptr ? nullptr : params.visited + s * params.num_candidates;
          a2v::offer_scores(scores.data(), first, last, visited, &best);
        }
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> dngo_acquire(
    const Tensor& candidates, const Tensor& weight, const Tensor& bias, const Tensor& coefficients,
    const Tensor& factor, const Tensor& noise, const Tensor& target,
    const std::optional<Tensor>& visited, std::int64_t num_results, std::int64_t score,
    bool predictions) {
  AcquireCall call =
      prepare_acquire({candidates, weight, bias, coefficients, factor, noise, target, visited},
                      num_results, score, predictions);
  const std::int64_t seeds = weight.size(0);
  const std::int64_t chunks = (call.params.num_candidates + kChunk - 1) / kChunk;
  const std::int64_t listed = chunks * num_results;
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(seeds * listed));
  search_chunks(call.params, seeds, chunks, keys.data());
  for (std::int64_t s = 0; s < seeds; ++s) {
    a2v::list_best(keys.data() + s * listed, listed, num_results,
                   call.scores.mutable_data_ptr<float>() + s * num_results,
                   call.indices.mutable_data_ptr<std::int64_t>() + s * num_results);
  }
  return {call.scores, call.indices, call.mean, call.variance};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("dngo_draw", TORCH_BOX(&dngo_draw));
  m.impl("dngo_fit", TORCH_BOX(&dngo_fit));
  m.impl("dngo_evidence", TORCH_BOX(&dngo_evidence));
  m.impl("dngo_acquire", TORCH_BOX(&dngo_acquire));
}

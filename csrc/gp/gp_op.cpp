// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::gp_extend and gp_acquire on the CPU: checks, allocation, threads,
// the best K. Schemas in library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "common/best_keys.h"
#include "common/check.h"
#include "common/cpu_features.h"
#include "gp/gp.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr std::int64_t kMaxFeatures = 1 << 16;

struct Kernels {
  decltype(&a2v::scalar::gp_extend) extend;
  decltype(&a2v::scalar::gp_score) score;
};

Kernels kernels() {
#if defined(__x86_64__)
  switch (a2v::simd_level()) {
    case a2v::SimdLevel::kAvx512:
      return {&a2v::avx512::gp_extend, &a2v::avx512::gp_score};
    case a2v::SimdLevel::kAvx2:
      return {&a2v::avx2::gp_extend, &a2v::avx2::gp_score};
    case a2v::SimdLevel::kScalar:
      break;
  }
#endif
  return {&a2v::scalar::gp_extend, &a2v::scalar::gp_score};
}

void check(const char* name, const Tensor& tensor, ScalarType dtype,
           std::initializer_list<std::int64_t> shape) {
  A2V_CHECK(tensor.scalar_type() == dtype, name, ": wrong dtype");
  A2V_CHECK(tensor.dim() == static_cast<std::int64_t>(shape.size()), name, ": expected ",
            shape.size(), " dimensions, got ", tensor.dim());
  std::int64_t dim = 0;
  for (const std::int64_t size : shape) {
    A2V_CHECK(tensor.size(dim) == size, name, ": expected size ", size, " in dimension ", dim,
              ", got ", tensor.size(dim));
    ++dim;
  }
}

Tensor packed(const Tensor& tensor) { return torch::stable::contiguous(tensor); }

std::int64_t num_chunks(std::int64_t panels) {
  return (panels + a2v::kGpPanels - 1) / a2v::kGpPanels;
}

void check_panels(std::int64_t candidates, std::int64_t panels) {
  A2V_CHECK(panels == (candidates + a2v::kGpLanes - 1) / a2v::kGpLanes, "panels: ", panels,
            " do not hold ", candidates, " candidates");
}

// Checks that rows are of candidates that are there, so that kernels stay inside the lists; returns
// the most entries of one of them.
std::int64_t check_rows(const a2v::GpExtendParams& params, std::int64_t searches) {
  std::int64_t most = 0;
  for (std::int64_t s = 0; s < searches; ++s) {
    A2V_CHECK(params.first[s] >= 0 && params.first[s] <= params.last[s] &&
                  params.last[s] <= params.num_points,
              "first: ", params.first[s], " of ", params.last[s], " rows in search ", s);
    for (std::int64_t m = params.first[s]; m < params.last[s]; ++m) {
      const std::int64_t row = params.rows[s * params.num_points + m];
      A2V_CHECK(row >= 0 && row < params.num_candidates, "rows: ", row, " is outside 0..",
                params.num_candidates - 1);
      most = std::max(most, params.starts[row + 1] - params.starts[row]);
    }
  }
  return most;
}

void gp_extend(const Tensor& panels, const Tensor& norms, const Tensor& starts,
               const Tensor& colours, const Tensor& weights, std::int64_t num_colours,
               const Tensor& rows, const Tensor& first, const Tensor& last, const Tensor& factor,
               const Tensor& kernel, const Tensor& coefficients, const Tensor& solved,
               const Tensor& explained, const Tensor& mean) {
  const std::int64_t searches = rows.size(0), points = rows.size(1), count = panels.size(0);
  const std::int64_t entries = colours.size(0), capacity = solved.size(2);
  check_panels(starts.size(0) - 1, count);
  check("panels", panels, ScalarType::Float, {count, panels.size(1), a2v::kGpLanes});
  check("norms", norms, ScalarType::Float, {count, a2v::kGpLanes});
  check("starts", starts, ScalarType::Long, {starts.size(0)});
  check("colours", colours, ScalarType::Int, {entries});
  check("weights", weights, ScalarType::Float, {entries});
  check("rows", rows, ScalarType::Long, {searches, points});
  check("first", first, ScalarType::Long, {searches});
  check("last", last, ScalarType::Long, {searches});
  check("factor", factor, ScalarType::Float, {searches, points, points});
  check("kernel", kernel, ScalarType::Float, {searches, 2});
  check("coefficients", coefficients, ScalarType::Float, {searches, points});
  check("solved", solved, ScalarType::Float, {searches, count, capacity, a2v::kGpLanes});
  check("explained", explained, ScalarType::Float, {searches, count, a2v::kGpLanes});
  check("mean", mean, ScalarType::Float, {searches, count, a2v::kGpLanes});
  A2V_CHECK(panels.size(1) <= kMaxFeatures &&
                points <= std::min<std::int64_t>(capacity, a2v::kMaxGpPoints),
            "rows: ", points, " points for ", capacity, " rows of solved");
  A2V_CHECK(solved.is_contiguous() && explained.is_contiguous() && mean.is_contiguous(),
            "solved, explained, mean: not contiguous, and written in place");
  const Tensor inputs[] = {packed(panels),  packed(norms),  packed(starts),      packed(colours),
                           packed(weights), packed(rows),   packed(first),       packed(last),
                           packed(factor),  packed(kernel), packed(coefficients)};
  a2v::GpExtendParams params = {
      .num_features = static_cast<int>(panels.size(1)),
      .num_points = static_cast<int>(points),
      .capacity = static_cast<int>(capacity),
      .num_panels = count,
      .num_candidates = starts.size(0) - 1,
      .most_entries = 0,
      .panels = inputs[0].const_data_ptr<float>(),
      .norms = inputs[1].const_data_ptr<float>(),
      .starts = inputs[2].const_data_ptr<std::int64_t>(),
      .colours = inputs[3].const_data_ptr<std::int32_t>(),
      .weights = inputs[4].const_data_ptr<float>(),
      .rows = inputs[5].const_data_ptr<std::int64_t>(),
      .first = inputs[6].const_data_ptr<std::int64_t>(),
      .last = inputs[7].const_data_ptr<std::int64_t>(),
      .factor = inputs[8].const_data_ptr<float>(),
      .kernel = inputs[9].const_data_ptr<float>(),
      .coefficients = inputs[10].const_data_ptr<float>(),
      .solved = solved.mutable_data_ptr<float>(),
      .explained = explained.mutable_data_ptr<float>(),
      .mean = mean.mutable_data_ptr<float>(),
  };
  params.most_entries = check_rows(params, searches);
  const std::int64_t chunks = num_chunks(count);
  const Kernels run = kernels();
  torch::stable::parallel_for(
      0, searches * chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
        std::vector<float> workspace(static_cast<std::size_t>(a2v::gp_extend_floats(params)));
        std::vector<std::int32_t> lines(static_cast<std::size_t>(num_colours));
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const std::int64_t s = task / chunks;
          const std::int64_t panel = task % chunks * a2v::kGpPanels;
          const std::int64_t end = std::min(panel + a2v::kGpPanels, count);
          if (params.first[s] == 0) {
            for (float* sums : {params.explained, params.mean}) {
              sums += s * count * a2v::kGpLanes;
              std::fill(sums + panel * a2v::kGpLanes, sums + end * a2v::kGpLanes, 0.0F);
            }
          }
          run.extend(params, s, panel, end, workspace.data(), lines.data());
        }
      });
}

// The best K of every search and thread, in keys [S, chunks, K] where the thread's chunks begin.
void search_chunks(const a2v::GpAcquireParams& params, std::int64_t searches, int num_results,
                   const std::uint8_t* visited, std::uint64_t* keys) {
  const std::int64_t chunks = num_chunks(params.num_panels);
  const Kernels run = kernels();
  torch::stable::parallel_for(
      0, searches * chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
        std::vector<float> scores(a2v::kGpPanels * a2v::kGpLanes);
        std::optional<a2v::BestKeys> best;
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const std::int64_t s = task / chunks;
          const std::int64_t panel = task % chunks * a2v::kGpPanels;
          const std::int64_t end = std::min(panel + a2v::kGpPanels, params.num_panels);
          run.score(params, s, panel, end, scores.data());
          if (task == first_task || task % chunks == 0) {
            best.emplace(keys + task * num_results, num_results);
          }
          a2v::offer_scores(scores.data(), panel * a2v::kGpLanes,
                            std::min(end * a2v::kGpLanes, params.num_candidates),
                            visited == nullptr ? nullptr : visited + s * params.num_candidates,
                            &*best);
        }
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gp_acquire(const Tensor& mean, const Tensor& explained,
                                                      const Tensor& scale, const Tensor& target,
                                                      const std::optional<Tensor>& visited,
                                                      std::int64_t num_candidates,
                                                      std::int64_t num_results, bool predictions) {
  const std::int64_t searches = mean.size(0), panels = mean.size(1);
  check_panels(num_candidates, panels);
  check("mean", mean, ScalarType::Float, {searches, panels, a2v::kGpLanes});
  check("explained", explained, ScalarType::Float, {searches, panels, a2v::kGpLanes});
  check("scale", scale, ScalarType::Float, {searches});
  check("target", target, ScalarType::Float, {searches});
  if (visited.has_value()) check("visited", *visited, ScalarType::Bool, {searches, num_candidates});
  A2V_CHECK(num_candidates <= (std::int64_t{1} << 32) && num_results >= 0 && num_results <= 1024,
            "num_results: ", num_results, " is outside 0..1024");
  const Tensor inputs[] = {packed(mean), packed(explained), packed(scale), packed(target)};
  const Tensor mask = packed(visited.has_value() ? *visited : scale);  // scale: never read
  const auto empty = [&](std::int64_t width, ScalarType dtype) {
    return torch::stable::new_empty(mean, {searches, width}, dtype);
  };
  Tensor scores = empty(num_results, ScalarType::Float);
  Tensor indices = empty(num_results, ScalarType::Long);
  Tensor means = empty(predictions ? num_candidates : 0, ScalarType::Float);
  Tensor variances = empty(predictions ? num_candidates : 0, ScalarType::Float);
  const a2v::GpAcquireParams params = {
      .num_panels = panels,
      .num_candidates = num_candidates,
      .mean = inputs[0].const_data_ptr<float>(),
      .explained = inputs[1].const_data_ptr<float>(),
      .scale = inputs[2].const_data_ptr<float>(),
      .target = inputs[3].const_data_ptr<float>(),
      .means = predictions ? means.mutable_data_ptr<float>() : nullptr,
      .variances = predictions ? variances.mutable_data_ptr<float>() : nullptr,
  };
  const std::int64_t listed = num_chunks(panels) * num_results;
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(searches * listed), a2v::kNoKey);
  const void* gone = visited.has_value() ? mask.const_data_ptr() : nullptr;
  search_chunks(params, searches, static_cast<int>(num_results),
                static_cast<const std::uint8_t*>(gone), keys.data());
  for (std::int64_t s = 0; s < searches; ++s) {
    a2v::list_best(keys.data() + s * listed, listed, num_results,
                   scores.mutable_data_ptr<float>() + s * num_results,
                   indices.mutable_data_ptr<std::int64_t>() + s * num_results);
  }
  return {scores, indices, means, variances};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("gp_extend", TORCH_BOX(&gp_extend));
  m.impl("gp_acquire", TORCH_BOX(&gp_acquire));
}

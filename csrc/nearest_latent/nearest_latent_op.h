// SPDX-License-Identifier: Apache-2.0
// Checks that the CPU's and the GPU's operators share. The public functions have worded them for
// their users; here they keep the raw operators from reading out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "common/check.h"
#include "nearest_latent/nearest_latent.h"

namespace a2v {

inline void check_points(const torch::stable::Tensor& points) {
  A2V_CHECK(points.scalar_type() == torch::headeronly::ScalarType::Float,
            "points: expected float32");
  A2V_CHECK(points.dim() == 2 && points.size(0) < (std::int64_t{1} << 31) && points.size(1) >= 1 &&
                points.size(1) <= kMaxLatentDim,
            "points: expected shape [Q, D] with Q < 2^31 and D in 1..", kMaxLatentDim);
}

inline void check_search(const torch::stable::Tensor& points, const torch::stable::Tensor& queries,
                         const std::optional<torch::stable::Tensor>& visited, std::int64_t k) {
  using torch::headeronly::ScalarType;
  check_points(points);
  A2V_CHECK(queries.scalar_type() == ScalarType::Float, "queries: expected float32");
  A2V_CHECK(queries.dim() == 2 && queries.size(1) == points.size(1), "queries: expected shape [M, ",
            points.size(1), "]");
  A2V_CHECK(k >= 1 && k <= kMaxNeighbours, "k: ", k, " is outside 1..", kMaxNeighbours);
  if (!visited.has_value()) {
    return;
  }
  const std::int64_t words = (points.size(0) + 63) / 64;
  A2V_CHECK(visited->scalar_type() == ScalarType::Long, "visited: expected int64");
  A2V_CHECK(visited->dim() == 2 && visited->size(1) == words &&
                (visited->size(0) == 1 || visited->size(0) == queries.size(0)),
            "visited: expected shape [1, ", words, "] or [", queries.size(0), ", ", words, "]");
}

}  // namespace a2v

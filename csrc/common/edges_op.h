// SPDX-License-Identifier: Apache-2.0
// Checks that the operators on node vectors and edges share (gin_aggregate, latent_decode).
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "cells/packed_cell.h"
#include "common/check.h"
#include "common/edges.h"

namespace a2v {

inline bool is_double(const torch::stable::Tensor& tensor) {
  return tensor.scalar_type() == torch::headeronly::ScalarType::Double;
}

inline void check_floating(const char* name, const torch::stable::Tensor& tensor,
                           std::int64_t dims) {
  A2V_CHECK(is_double(tensor) || tensor.scalar_type() == torch::headeronly::ScalarType::Float, name,
            ": expected float32 or float64");
  A2V_CHECK(tensor.dim() == dims, name, ": expected ", dims, " dimensions, got ", tensor.dim());
  for (std::int64_t d = 1; d < dims; ++d) {
    A2V_CHECK(tensor.size(d) < (std::int64_t{1} << 15), name, ": dimension ", d, " is above 32767");
  }
}

// Same dtype and device as `model`.
inline void check_alike(const char* name, const torch::stable::Tensor& tensor,
                        const torch::stable::Tensor& model) {
  A2V_CHECK(tensor.scalar_type() == model.scalar_type(), name,
            ": expected the dtype of the other arguments");
  A2V_CHECK(
      tensor.get_device_index() == model.get_device_index() && tensor.is_cuda() == model.is_cuda(),
      name, ": expected a tensor on the device of the other arguments; move it there");
}

// Dense [B, N, N] or codes [B, W] of the cells whose nodes `nodes` [B, N, ...] holds.
inline void check_edges(const torch::stable::Tensor& edges, const torch::stable::Tensor& nodes) {
  const std::int64_t cells = nodes.size(0);
  const std::int64_t n = nodes.size(1);
  if (edges.scalar_type() == torch::headeronly::ScalarType::Long) {
    A2V_CHECK(n <= kMaxNodes, "codes: cells have at most ", kMaxNodes, " nodes, not ", n);
    A2V_CHECK(edges.dim() == 2 && edges.size(0) == cells && edges.size(1) * 64 >= n * (n - 1) / 2 &&
                  edges.size(1) <= kMaxWords,
              "codes: expected shape [", cells, ", W] for cells of ", n, " nodes");
    A2V_CHECK(
        edges.get_device_index() == nodes.get_device_index() && edges.is_cuda() == nodes.is_cuda(),
        "codes: expected a tensor on the device of the other arguments; move it there");
    return;
  }
  check_alike("adjacency", edges, nodes);
  A2V_CHECK(edges.dim() == 3 && edges.size(0) == cells && edges.size(1) == n && edges.size(2) == n,
            "adjacency: expected shape [", cells, ", ", n, ", ", n, "]");
}

// A gradient of what has `model`'s dtype and shape [rows, nodes, columns], contiguous.
inline torch::stable::Tensor check_gradient(const char* name, const torch::stable::Tensor& gradient,
                                            const torch::stable::Tensor& model,
                                            std::int64_t columns) {
  check_alike(name, gradient, model);
  A2V_CHECK(gradient.dim() == 3 && gradient.size(0) == model.size(0) &&
                gradient.size(1) == model.size(1) && gradient.size(2) == columns,
            name, ": expected shape [", model.size(0), ", ", model.size(1), ", ", columns, "]");
  return torch::stable::contiguous(gradient);
}

template <class T>
Edges<T> edges_of(const torch::stable::Tensor& edges) {
  const bool packed = edges.scalar_type() == torch::headeronly::ScalarType::Long;
  return {
      .dense = packed ? nullptr : edges.const_data_ptr<T>(),
      .codes = packed ? edges.const_data_ptr<std::int64_t>() : nullptr,
      .words = packed ? static_cast<int>(edges.size(1)) : 0,
  };
}

}  // namespace a2v

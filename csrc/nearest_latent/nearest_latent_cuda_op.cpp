// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::pack_latents and nearest_latent on the GPU. Schemas in library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/cuda_op.h"
#include "nearest_latent/nearest_latent_cuda.h"
#include "nearest_latent/nearest_latent_op.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The GPU scans the points themselves: nothing to prepare.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pack_latents(const Tensor& points) {
  a2v::check_points(points);
  return {torch::stable::new_empty(points, {0, 1, a2v::kBlockPoints, 4}, ScalarType::Byte),
          torch::stable::new_empty(points, {0, a2v::kBlockPoints}, ScalarType::Float),
          torch::stable::new_empty(points, {0}, ScalarType::Double),
          torch::stable::new_empty(points, {0}, ScalarType::Int),
          torch::stable::new_empty(points, {0, points.size(1), 2, a2v::kFan}, ScalarType::Float)};
}

std::tuple<Tensor, Tensor> nearest_latent(const Tensor& points, const Tensor& /*codes*/,
                                          const Tensor& /*norms*/, const Tensor& /*frame*/,
                                          const Tensor& /*order*/, const Tensor& /*boxes*/,
                                          const Tensor& queries,
                                          const std::optional<Tensor>& visited, std::int64_t k) {
  const a2v::OnDeviceOf device(points);
  a2v::check_search(points, queries, visited, k);
  device.check(queries, "queries");
  const Tensor rows = torch::stable::contiguous(points);
  const Tensor wanted = torch::stable::contiguous(queries);
  std::optional<Tensor> mask;
  if (visited.has_value()) {
    device.check(*visited, "visited");
    mask = torch::stable::contiguous(*visited);
  }
  const std::int64_t num_queries = wanted.size(0);
  Tensor distances = torch::stable::new_empty(wanted, {num_queries, k}, ScalarType::Float);
  Tensor indices = torch::stable::new_empty(wanted, {num_queries, k}, ScalarType::Long);
  if (num_queries == 0) {
    return {distances, indices};
  }
  a2v::NearestLatentCuda params{
      .num_points = rows.size(0),
      .num_queries = std::min(num_queries, a2v::kMaxCudaQueries),
      .dim = static_cast<int>(rows.size(1)),
      .k = static_cast<int>(k),
      .points = rows.const_data_ptr<float>(),
      .queries = wanted.const_data_ptr<float>(),
      .visited = nullptr,
      .visited_rows = mask.has_value() ? mask->size(0) : 0,
      .keys = nullptr,
      .distances = distances.mutable_data_ptr<float>(),
      .indices = indices.mutable_data_ptr<std::int64_t>(),
  };
  if (mask.has_value()) {
    params.visited = reinterpret_cast<const std::uint64_t*>(mask->const_data_ptr<std::int64_t>());
  }
  const std::int64_t chunks = a2v::nearest_latent_chunks(
      params.num_points, params.num_queries, params.k, a2v::nearest_latent_multiprocessors());
  Tensor keys = torch::stable::new_empty(wanted, {params.num_queries, chunks, k}, ScalarType::Long);
  params.keys = reinterpret_cast<std::uint64_t*>(keys.mutable_data_ptr<std::int64_t>());

  // Batches of what a grid takes, one after the other in stream order, over the same scratch.
  for (std::int64_t done = 0; done < num_queries; done += params.num_queries) {
    params.num_queries = std::min(num_queries - done, a2v::kMaxCudaQueries);
    a2v::NearestLatentCuda batch = params;
    batch.queries += done * params.dim;
    batch.distances += done * k;
    batch.indices += done * k;
    if (params.visited_rows > 1) {
      batch.visited += done * ((params.num_points + 63) / 64);
    }
    a2v::nearest_latent_cuda(batch, chunks, device.stream());
  }
  return {distances, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("pack_latents", TORCH_BOX(&pack_latents));
  m.impl("nearest_latent", TORCH_BOX(&nearest_latent));
}

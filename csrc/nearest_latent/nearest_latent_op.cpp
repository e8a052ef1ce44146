// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::pack_latents and nearest_latent on the CPU: checks, allocation,
// threads. Schemas in library.cpp.

#include "nearest_latent/nearest_latent_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Tiles a thread takes at least: some 20 us of scanning, well above the cost of waking it.
constexpr std::int64_t kGrain = 64;

// What pack_latents returns: codes, norms, frame, order, boxes.
using Packed = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// Keeps the scan inside what pack_latents made.
void check_packed(const Tensor& points, const Packed& packed) {
  const auto& [codes, norms, frame, order, boxes] = packed;
  const std::int64_t count = points.size(0);
  const auto dim = static_cast<int>(points.size(1));
  A2V_CHECK(codes.scalar_type() == ScalarType::Byte && norms.scalar_type() == ScalarType::Float &&
                frame.scalar_type() == ScalarType::Double &&
                order.scalar_type() == ScalarType::Int && boxes.scalar_type() == ScalarType::Float,
            "codes, norms, frame, order, boxes: expected uint8, float32, float64, int32, float32");
  A2V_CHECK(
      codes.numel() == a2v::num_blocks(count) * a2v::num_quads(dim) * 4 * a2v::kBlockPoints &&
          norms.numel() == a2v::num_blocks(count) * a2v::kBlockPoints &&
          frame.numel() == dim + a2v::kFrameFields && order.numel() == count &&
          boxes.numel() == (a2v::num_tiles(count) + a2v::num_regions(count)) * dim * 2 * a2v::kFan,
      "codes, norms, frame, order, boxes: not of these points; use pack_latents");
}

Packed pack_latents(const Tensor& points) {
  a2v::check_points(points);
  const Tensor rows = torch::stable::contiguous(points);
  const std::int64_t count = rows.size(0);
  const auto dim = static_cast<int>(rows.size(1));
  const std::int64_t blocks = a2v::num_blocks(count);
  Tensor codes = torch::stable::new_empty(rows, {blocks, a2v::num_quads(dim), a2v::kBlockPoints, 4},
                                          ScalarType::Byte);
  Tensor norms = torch::stable::new_empty(rows, {blocks, a2v::kBlockPoints}, ScalarType::Float);
  Tensor frame = torch::stable::new_zeros(rows, {dim + a2v::kFrameFields}, ScalarType::Double);
  Tensor order = torch::stable::new_empty(rows, {count}, ScalarType::Int);
  Tensor boxes = torch::stable::new_empty(
      rows, {a2v::num_tiles(count) + a2v::num_regions(count), dim, 2, a2v::kFan},
      ScalarType::Float);
  Tensor columns = torch::stable::new_empty(rows, {dim, count}, ScalarType::Byte);
  Tensor spare = torch::stable::new_empty(rows, {count}, ScalarType::Int);
  const a2v::LatentPacking packing{
      .codes = codes.mutable_data_ptr<std::uint8_t>(),
      .norms = norms.mutable_data_ptr<float>(),
      .frame = frame.mutable_data_ptr<double>(),
      .order = order.mutable_data_ptr<std::int32_t>(),
      .boxes = boxes.mutable_data_ptr<float>(),
      .columns = columns.mutable_data_ptr<std::uint8_t>(),
      .spare = spare.mutable_data_ptr<std::int32_t>(),
  };
  const std::int64_t packed = a2v::pack_latents(count, dim, rows.const_data_ptr<float>(), packing);
  A2V_CHECK(packed == count, "points: row ", packed,
            " holds a NaN or an infinity; remove or repair it");
  return {codes, norms, frame, order, boxes};
}

// The queries as the scan reads them, with the memory they stand in.
struct Queries {
  std::vector<std::int32_t> codes;
  std::vector<a2v::LatentQuery> queries;

  Queries(const a2v::LatentPoints& points, const Tensor& rows, const std::uint64_t* visited,
          std::int64_t visited_rows) {
    const std::int64_t count = rows.size(0);
    const std::int64_t words = (points.num_points + 63) / 64;
    const std::int64_t code_length = 2 * a2v::num_quads(points.dim);
    const float* values = rows.const_data_ptr<float>();
    codes.resize(static_cast<std::size_t>(count * code_length));
    queries.reserve(static_cast<std::size_t>(count));
    for (std::int64_t m = 0; m < count; ++m) {
      const float* query = values + m * points.dim;
      A2V_CHECK(
          std::all_of(query, query + points.dim, [](float value) { return std::isfinite(value); }),
          "queries: row ", m, " holds a NaN or an infinity; remove or repair it");
      const std::uint64_t* mask =
          visited == nullptr ? nullptr : visited + (visited_rows == 1 ? 0 : m) * words;
      queries.push_back(a2v::encode_query(points, query, mask, codes.data() + m * code_length));
    }
  }
};

// Splits M queries over the threads where there are many, else the tiles of points. The result
// does not depend on it.
struct Split {
  std::int64_t num_tiles, queries_each, tiles_each, groups, chunks;

  Split(std::int64_t queries, std::int64_t tiles) : num_tiles(std::max<std::int64_t>(tiles, 1)) {
    const std::int64_t threads = torch::stable::get_num_threads();
    const bool by_queries = queries >= 8 * threads;
    const std::int64_t pieces = std::min(threads, (num_tiles + kGrain - 1) / kGrain);
    queries_each = by_queries ? (queries + threads - 1) / threads : queries;
    tiles_each = by_queries ? num_tiles : (num_tiles + pieces - 1) / pieces;
    groups = (queries + queries_each - 1) / queries_each;
    chunks = (num_tiles + tiles_each - 1) / tiles_each;
  }
};

// What each query's scan begins with, on whatever thread and piece of the points: its limits.
std::vector<a2v::LatentBest> seeds(const a2v::LatentPoints& points, const Queries& queries, int k) {
  const auto num_queries = static_cast<std::int64_t>(queries.queries.size());
  std::vector<a2v::LatentBest> found(queries.queries.size());
  torch::stable::parallel_for(0, num_queries, 8, [&](std::int64_t first, std::int64_t last) {
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(k));
    for (std::int64_t m = first; m < last; ++m) {
      const auto query = static_cast<std::size_t>(m);
      found[query] = a2v::start_best(keys.data(), k);
      a2v::latent_scan().seed(points, queries.queries[query], found[query]);
    }
  });
  return found;
}

void search(const a2v::LatentPoints& points, const Queries& queries, int k, float* distances,
            std::int64_t* indices) {
  const auto num_queries = static_cast<std::int64_t>(queries.queries.size());
  const std::int64_t tiles = a2v::num_tiles(points.num_points);
  const Split split(num_queries, tiles);
  const std::vector<a2v::LatentBest> started = seeds(points, queries, k);
  // [M, chunks]: the lists of one query stand together, so that merging reads one array.
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(num_queries * split.chunks * k));
  torch::stable::parallel_for(
      0, split.groups * split.chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const std::int64_t chunk = task % split.chunks;
          const std::int64_t first = task / split.chunks * split.queries_each;
          const std::int64_t last = std::min(first + split.queries_each, num_queries);
          std::vector<a2v::LatentBest> best;
          for (std::int64_t m = first; m < last; ++m) {
            best.push_back(a2v::start_best(keys.data() + (m * split.chunks + chunk) * k, k));
            best.back().limit = started[static_cast<std::size_t>(m)].limit;
            best.back().farthest = started[static_cast<std::size_t>(m)].farthest;
          }
          a2v::latent_scan().scan(points, queries.queries.data() + first, best.data(), last - first,
                                  chunk * split.tiles_each,
                                  std::min((chunk + 1) * split.tiles_each, tiles));
        }
      });
  for (std::int64_t m = 0; m < num_queries; ++m) {
    a2v::merge_best(keys.data() + m * split.chunks * k, split.chunks, k, distances + m * k,
                    indices + m * k);
  }
}

std::tuple<Tensor, Tensor> nearest_latent(const Tensor& points, const Tensor& codes,
                                          const Tensor& norms, const Tensor& frame,
                                          const Tensor& order, const Tensor& boxes,
                                          const Tensor& queries,
                                          const std::optional<Tensor>& visited, std::int64_t k) {
  a2v::check_search(points, queries, visited, k);
  check_packed(points, {codes, norms, frame, order, boxes});
  const Tensor rows = torch::stable::contiguous(points);
  const Tensor packed[] = {torch::stable::contiguous(codes), torch::stable::contiguous(norms),
                           torch::stable::contiguous(frame), torch::stable::contiguous(order),
                           torch::stable::contiguous(boxes)};
  const Tensor wanted = torch::stable::contiguous(queries);
  const std::optional<Tensor> mask =
      visited.has_value() ? std::optional(torch::stable::contiguous(*visited)) : std::nullopt;
  Tensor distances = torch::stable::new_empty(wanted, {wanted.size(0), k}, ScalarType::Float);
  Tensor indices = torch::stable::new_empty(wanted, {wanted.size(0), k}, ScalarType::Long);
  if (wanted.size(0) == 0) {
    return {distances, indices};
  }
  const a2v::LatentPoints latents{
      .num_points = rows.size(0),
      .dim = static_cast<int>(rows.size(1)),
      .points = rows.const_data_ptr<float>(),
      .codes = packed[0].const_data_ptr<std::uint8_t>(),
      .norms = packed[1].const_data_ptr<float>(),
      .frame = packed[2].const_data_ptr<double>(),
      .order = packed[3].const_data_ptr<std::int32_t>(),
      .boxes = packed[4].const_data_ptr<float>(),
  };
  const auto* words =
      mask.has_value()
          ? reinterpret_cast<const std::uint64_t*>(mask->const_data_ptr<std::int64_t>())
          : nullptr;
  const Queries coded(latents, wanted, words, mask.has_value() ? mask->size(0) : 0);
  search(latents, coded, static_cast<int>(k), distances.mutable_data_ptr<float>(),
         indices.mutable_data_ptr<std::int64_t>());
  return {distances, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("pack_latents", TORCH_BOX(&pack_latents));
  m.impl("nearest_latent", TORCH_BOX(&nearest_latent));
}

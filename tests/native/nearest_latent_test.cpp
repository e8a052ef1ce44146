// SPDX-License-Identifier: Apache-2.0
// nearest_latent without torch, for the sanitizers: every instruction set that this machine runs
// against a full sort, on arrays of exactly the size they need; chunks of points on threads.

#include "nearest_latent/nearest_latent.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/cpu_features.h"

namespace {

using a2v::LatentBest;
using a2v::LatentPoints;
using a2v::LatentQuery;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Index {
  std::int64_t count;
  int dim;
  std::vector<float> points;
  std::vector<std::uint8_t> codes;
  std::vector<float> norms;
  std::vector<double> frame;
  std::vector<std::int32_t> order;
  std::vector<float> boxes;

  Index(std::int64_t count_, int dim_, float scale, std::mt19937& random)
      : count(count_), dim(dim_) {
    const auto blocks = static_cast<std::size_t>(a2v::num_blocks(count));
    points.resize(static_cast<std::size_t>(count * dim));
    codes.resize(blocks * static_cast<std::size_t>(a2v::num_quads(dim)) * 64);
    norms.resize(blocks * 16);
    frame.resize(static_cast<std::size_t>(dim) + a2v::kFrameFields);
    order.resize(static_cast<std::size_t>(count));
    boxes.resize(static_cast<std::size_t>((a2v::num_tiles(count) + a2v::num_regions(count)) * dim) *
                 2 * a2v::kFan);
    std::normal_distribution<float> normal;
    for (float& x : points) x = scale * std::round(4 * normal(random)) / 4;  // many ties
    expect(pack() == count, "finite points were refused");
    std::vector<std::int32_t> places = order;
    std::sort(places.begin(), places.end());
    for (std::size_t i = 0; i < places.size(); ++i) {
      expect(places[i] == static_cast<std::int32_t>(i), "the order leaves a point out");
    }
  }

  std::int64_t pack() {
    std::vector<std::uint8_t> columns(points.size());
    std::vector<std::int32_t> spare(order.size());
    return a2v::pack_latents(count, dim, points.data(),
                             {codes.data(), norms.data(), frame.data(), order.data(), boxes.data(),
                              columns.data(), spare.data()});
  }

  LatentPoints view() const {
    return {count,        dim,          points.data(), codes.data(),
            norms.data(), frame.data(), order.data(),  boxes.data()};
  }
};

bool is_visited(const std::vector<std::uint64_t>& visited, std::int64_t i) {
  return !visited.empty() && (visited[static_cast<std::size_t>(i / 64)] >> (i % 64) & 1) != 0;
}

std::vector<std::uint64_t> sorted_keys(const Index& index, const float* query, int k,
                                       const std::vector<std::uint64_t>& visited) {
  std::vector<std::uint64_t> keys;
  for (std::int64_t i = 0; i < index.count; ++i) {
    if (is_visited(visited, i)) continue;
    float sum = 0;
    for (int d = 0; d < index.dim; ++d) {
      const float difference = index.points[static_cast<std::size_t>(i * index.dim + d)] - query[d];
      sum += difference * difference;
    }
    keys.push_back(std::uint64_t{std::bit_cast<std::uint32_t>(sum)} << 32 |
                   static_cast<std::uint64_t>(i));
  }
  std::sort(keys.begin(), keys.end());
  keys.resize(static_cast<std::size_t>(k), a2v::kNoKey);
  return keys;
}

// The search as the operator does it, the points cut into `chunks` pieces, a thread each.
std::vector<std::uint64_t> search(const Index& index, const a2v::LatentScan& level,
                                  const std::vector<float>& queries, int k,
                                  const std::vector<std::uint64_t>& visited, std::int64_t chunks) {
  const LatentPoints points = index.view();
  const auto count = queries.size() / static_cast<std::size_t>(index.dim);
  const auto length = static_cast<std::size_t>(2 * a2v::num_quads(index.dim));
  const auto each = static_cast<std::size_t>(k);
  std::vector<std::vector<std::int32_t>> codes(count, std::vector<std::int32_t>(length));
  std::vector<LatentQuery> coded;
  for (std::size_t m = 0; m < count; ++m) {
    coded.push_back(a2v::encode_query(points, &queries[m * static_cast<std::size_t>(index.dim)],
                                      visited.empty() ? nullptr : visited.data(), codes[m].data()));
  }
  const auto pieces = static_cast<std::size_t>(chunks);
  std::vector<std::uint64_t> keys(count * pieces * each);
  const std::int64_t tiles = a2v::num_tiles(index.count);
  std::vector<LatentBest> seeds;
  for (const LatentQuery& query : coded) {
    std::vector<std::uint64_t> scratch(each);
    seeds.push_back(a2v::start_best(scratch.data(), k));
    level.seed(points, query, seeds.back());
  }
  std::vector<std::thread> threads;
  for (std::size_t c = 0; c < pieces; ++c) {
    threads.emplace_back([&, c] {
      std::vector<LatentBest> best;
      for (std::size_t m = 0; m < count; ++m) {
        best.push_back(a2v::start_best(&keys[(m * pieces + c) * each], k));
        best.back().limit = seeds[m].limit;
        best.back().farthest = seeds[m].farthest;
      }
      const auto chunk = static_cast<std::int64_t>(c);
      level.scan(points, coded.data(), best.data(), static_cast<std::int64_t>(count),
                 tiles * chunk / chunks, tiles * (chunk + 1) / chunks);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::uint64_t> found;
  for (std::size_t m = 0; m < count; ++m) {
    std::vector<float> distances(each);
    std::vector<std::int64_t> indices(each);
    a2v::merge_best(&keys[m * pieces * each], chunks, k, distances.data(), indices.data());
    for (std::size_t n = 0; n < each; ++n) {
      found.push_back(indices[n] < 0
                          ? a2v::kNoKey
                          : std::uint64_t{std::bit_cast<std::uint32_t>(distances[n])} << 32 |
                                static_cast<std::uint64_t>(indices[n]));
    }
  }
  return found;
}

void searches_agree(const std::vector<a2v::LatentScan>& levels) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const std::int64_t count : {0, 1, 15, 16, 17, 33, 513, 1000, 9001}) {
    for (const int dim : {1, 3, 4, 16, 17, 100}) {
      for (const float scale : {1e-40F, 1.0F, 1e19F}) {
        if (count > 1000 && (dim > 17 || scale != 1.0F)) continue;
        const Index index(count, dim, scale, random);
        std::vector<float> queries(static_cast<std::size_t>(6 * dim));
        for (float& x : queries) x = scale * normal(random);
        queries[0] = 1e30F;  // far outside of the points
        std::vector<std::uint64_t> visited(static_cast<std::size_t>((count + 63) / 64));
        for (std::uint64_t& word : visited) word = random() | std::uint64_t{random()} << 32;
        if (dim == 3) visited.clear();
        for (const int k : {1, 70}) {
          std::vector<std::uint64_t> wanted;
          for (std::size_t m = 0; m < 6; ++m) {
            const float* query = &queries[m * static_cast<std::size_t>(dim)];
            for (const std::uint64_t key : sorted_keys(index, query, k, visited)) {
              wanted.push_back(key);
            }
          }
          for (const a2v::LatentScan& level : levels) {
            for (const std::int64_t chunks : {1, 2, 3}) {
              expect(search(index, level, queries, k, visited, chunks) == wanted,
                     "neighbours differ: " + std::to_string(count) + " points, D " +
                         std::to_string(dim) + ", k " + std::to_string(k));
            }
          }
        }
      }
    }
  }
}

void refuses_what_is_not_finite() {
  std::mt19937 random(3);
  Index index(10, 3, 1.0F, random);
  index.points[3 * 7 + 2] = std::numeric_limits<float>::infinity();
  index.points[3 * 8] = std::numeric_limits<float>::quiet_NaN();
  expect(index.pack() == 7, "the first bad row is not named");
}

}  // namespace

int main() {
  std::vector<a2v::LatentScan> levels{a2v::kLatentScanScalar};
#if defined(__x86_64__)
  if (a2v::detected_simd_level() >= a2v::SimdLevel::kAvx2) levels.push_back(a2v::kLatentScanAvx2);
  if (a2v::detected_simd_level() >= a2v::SimdLevel::kAvx512) {
    levels.push_back(a2v::kLatentScanAvx512);
  }
#endif
  searches_agree(levels);
  refuses_what_is_not_finite();
  std::printf("nearest_latent_test passed on %zu instruction sets\n", levels.size());
}

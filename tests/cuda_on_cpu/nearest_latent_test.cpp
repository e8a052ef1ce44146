// SPDX-License-Identifier: Apache-2.0
// nearest_latent.cu against a full sort on the CPU, bit for bit: one and many neighbours, all
// widths of the query group, ties, masks, rows that cannot be read four floats at a time.

#include "nearest_latent/nearest_latent.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "nearest_latent/nearest_latent_cuda.h"

namespace {

using cuda_on_cpu::Guarded;

struct Case {
  std::size_t num_points, num_queries, dim;
  int k;
  std::size_t visited_rows = 0;
  std::int64_t chunks = 0;  // 0: what the operator would take on two multiprocessors
  bool misaligned = false;
  bool has_nan = false;  // in the last query
};

struct Problem {
  std::vector<float> points, queries;
  std::vector<std::uint64_t> visited;
};

Problem make_problem(const Case& c) {
  std::mt19937 random(static_cast<unsigned>(c.num_points * 31 + c.dim));
  std::normal_distribution<float> normal;
  Problem problem{std::vector<float>(c.num_points * c.dim),
                  std::vector<float>(c.num_queries * c.dim),
                  std::vector<std::uint64_t>(c.visited_rows * ((c.num_points + 63) / 64))};
  for (float& x : problem.points) x = std::round(4 * normal(random)) / 4;  // many ties
  for (float& x : problem.queries) x = normal(random);
  for (std::uint64_t& word : problem.visited) word = random() | std::uint64_t{random()} << 32;
  if (c.has_nan) problem.queries.back() = std::numeric_limits<float>::quiet_NaN();
  return problem;
}

// Keys of the k nearest unvisited points of one query, by sorting all.
std::vector<std::uint64_t> sorted_keys(const Case& c, const Problem& problem, std::size_t m) {
  std::vector<std::uint64_t> keys;
  const std::size_t words = (c.num_points + 63) / 64;
  for (std::size_t i = 0; i < c.num_points; ++i) {
    const std::size_t row = c.visited_rows == 1 ? 0 : m;
    if (c.visited_rows != 0 && (problem.visited[row * words + i / 64] >> (i % 64) & 1) != 0) {
      continue;
    }
    float sum = 0;
    for (std::size_t d = 0; d < c.dim; ++d) {
      const float difference = problem.points[i * c.dim + d] - problem.queries[m * c.dim + d];
      sum += difference * difference;
    }
    if (std::isnan(sum)) continue;
    keys.push_back(std::uint64_t{std::bit_cast<std::uint32_t>(sum)} << 32 | i);
  }
  std::sort(keys.begin(), keys.end());
  keys.resize(static_cast<std::size_t>(c.k), a2v::kNoKey);
  return keys;
}

void require(bool condition, const std::string& what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

void expect_keys(const std::vector<std::uint64_t>& keys, const float* distances,
                 const std::int64_t* indices) {
  for (std::size_t n = 0; n < keys.size(); ++n) {
    if (keys[n] == a2v::kNoKey) {
      require(indices[n] == -1 && std::isinf(distances[n]), "found a neighbour too many");
      continue;
    }
    require(indices[n] == static_cast<std::int64_t>(keys[n] & 0xffffffffU), "wrong index");
    require(std::bit_cast<std::uint32_t>(distances[n]) == keys[n] >> 32, "wrong distance");
  }
}

void searches(const Case& c, unsigned shuffled) {
  const Problem problem = make_problem(c);
  std::vector<std::vector<std::uint64_t>> wanted;
  for (std::size_t m = 0; m < c.num_queries; ++m) wanted.push_back(sorted_keys(c, problem, m));
  const std::int64_t chunks =
      c.chunks != 0 ? c.chunks
                    : a2v::nearest_latent_chunks(static_cast<std::int64_t>(c.num_points),
                                                 static_cast<std::int64_t>(c.num_queries), c.k, 2);
  const std::size_t results = c.num_queries * static_cast<std::size_t>(c.k);
  const std::size_t shift = c.misaligned ? 1 : 0;
  const auto run = [&] {
    std::vector<float> shifted(shift);
    shifted.insert(shifted.end(), problem.points.begin(), problem.points.end());
    const Guarded<float> points(shifted);
    const Guarded<float> queries(problem.queries);
    const Guarded<std::uint64_t> visited(problem.visited);
    Guarded<std::uint64_t> keys(results * static_cast<std::size_t>(chunks));
    Guarded<float> distances(results);
    Guarded<std::int64_t> indices(results);
    const a2v::NearestLatentCuda params{
        .num_points = static_cast<std::int64_t>(c.num_points),
        .num_queries = static_cast<std::int64_t>(c.num_queries),
        .dim = static_cast<int>(c.dim),
        .k = c.k,
        .points = points.data() + shift,
        .queries = queries.data(),
        .visited = c.visited_rows == 0 ? nullptr : visited.data(),
        .visited_rows = static_cast<std::int64_t>(c.visited_rows),
        .keys = keys.data(),
        .distances = distances.data(),
        .indices = indices.data(),
    };
    a2v::nearest_latent_cuda(params, chunks, nullptr);
    keys.check();
    distances.check();
    indices.check();
    for (std::size_t m = 0; m < c.num_queries; ++m) {
      const std::size_t first = m * static_cast<std::size_t>(c.k);
      expect_keys(wanted[m], &distances[first], &indices[first]);
    }
  };
  cuda_on_cpu::for_each_schedule(run, shuffled);
}

}  // namespace

int main() {
  const Case cases[] = {
      {.num_points = 1, .num_queries = 1, .dim = 1, .k = 1},
      {.num_points = 0, .num_queries = 2, .dim = 3, .k = 1},
      {.num_points = 0, .num_queries = 2, .dim = 3, .k = 5},
      {.num_points = 1500, .num_queries = 1, .dim = 16, .k = 1, .visited_rows = 1},
      {.num_points = 1500, .num_queries = 3, .dim = 7, .k = 1, .visited_rows = 3},
      {.num_points = 2100, .num_queries = 4, .dim = 8, .k = 1, .misaligned = true},
      {.num_points = 1100, .num_queries = 19, .dim = 16, .k = 1, .visited_rows = 19, .chunks = 2},
      {.num_points = 700, .num_queries = 5, .dim = 5, .k = 1, .has_nan = true},
      {.num_points = 300, .num_queries = 17, .dim = 3, .k = 1, .visited_rows = 1, .chunks = 3},
      {.num_points = 3, .num_queries = 2, .dim = 16, .k = 7},
      {.num_points = 2600, .num_queries = 2, .dim = 16, .k = 2, .visited_rows = 2, .chunks = 2},
      {.num_points = 1700, .num_queries = 1, .dim = 4, .k = 100, .misaligned = true},
      {.num_points = 900, .num_queries = 2, .dim = 5, .k = 300, .visited_rows = 1, .has_nan = true},
      {.num_points = 1300, .num_queries = 1, .dim = 2, .k = 1024, .chunks = 2},
  };
  for (const Case& c : cases) {
    try {
      searches(c, c.k > 2 ? 1 : 3);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "FAILED: %zu points, %zu queries, D %zu, k %d: %s\n", c.num_points,
                   c.num_queries, c.dim, c.k, error.what());
      return 1;
    }
  }
  std::puts("nearest_latent_kernel_test passed");
}

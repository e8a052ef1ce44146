// SPDX-License-Identifier: Apache-2.0
// gin_encode without torch, for the sanitizers: every instruction set that this machine runs, and
// the portable bfloat16 products, against a plain double-precision encoder; then sharing, chunks
// and threads against each other, to the bit. Arrays have exactly the size they need.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/cpu_features.h"
#include "common/sparse_rows.h"
#include "gin_encode/gin_encode_bf16.h"
#include "gin_encode/gin_encoder.h"

namespace {

using a2v::EncodeKernels;
using a2v::GinEncodeConfig;
using a2v::GinEncodeOutput;

constexpr EncodeKernels kPortableBfloat16{a2v::scalar::pack_pairs,
                                          a2v::scalar::encode_layer<a2v::scalar::Bfloat16>,
                                          a2v::scalar::encode_readout};

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

// work(first, last) of 0 .. count-1 on each thread.
template <class Work>
void on_threads(int threads, std::int64_t count, const Work& work) {
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t) {
    team.emplace_back([&, t] { work(count * t / threads, count * (t + 1) / threads); });
  }
  for (std::thread& thread : team) thread.join();
}

struct Problem {
  GinEncodeConfig config;
  std::vector<std::uint64_t> codes;
  std::vector<float> weights;

  Problem(GinEncodeConfig config_, std::int64_t cells, bool gated, std::mt19937& random)
      : config(config_) {
    const a2v::CellLayout layout = config.layout();
    codes.resize(size_of(cells * layout.words()));
    for (std::int64_t b = 0; b < cells; ++b) {
      a2v::Cell cell;
      for (int v = 0; v < layout.num_nodes; ++v) {
        cell.preds[v] = static_cast<std::uint16_t>(random() & random() & ((1U << v) - 1));
        cell.label[v] = static_cast<std::uint8_t>(random() % size_of(layout.num_op_types + 1));
      }
      a2v::pack_cell(layout, cell, codes.data() + b * layout.words());
    }
    const a2v::GinEncodeWeights at(config);
    weights.resize(size_of(at.size()));
    std::normal_distribution<float> normal;
    const float spread = 1.0F / std::sqrt(static_cast<float>(config.hidden_dim));
    for (float& weight : weights) weight = spread * normal(random);
    for (int l = 0; l < config.num_layers; ++l) {
      weights[size_of(at.scale(l))] = 1.25F;
      for (int i = 0; i < 2 * config.input_width(l) && !gated; ++i) {
        weights[size_of(at.gates(l) + i)] = 1.0F;
      }
    }
  }

  std::int64_t cells() const {
    return static_cast<std::int64_t>(codes.size()) / config.layout().words();
  }

  std::int64_t width(GinEncodeOutput output) const {
    if (output == GinEncodeOutput::kReadout) return config.latent_dim;
    if (output == GinEncodeOutput::kNodes) return config.num_nodes * config.latent_dim;
    return config.num_layers * config.hidden_dim;
  }

  // `share` as in GinEncodeConfig; each thread takes its part of the cells.
  std::vector<float> encode(const EncodeKernels& kernels, GinEncodeOutput output, int share,
                            int threads) const {
    std::vector<float> result(size_of(cells() * width(output)));
    a2v::GinEncodeParams params{.config = config,
                                .output = output,
                                .precision = a2v::GinEncodePrecision::kFloat32,
                                .num_cells = cells(),
                                .codes = reinterpret_cast<const std::int64_t*>(codes.data()),
                                .weights = weights.data(),
                                .result = result.data()};
    params.config.share = share;
    const bool merges = a2v::merges_cells(params);
    a2v::EqualCells equal(config.layout(), config.num_layers, codes.data(), cells());
    if (merges) {
      on_threads(threads, cells(), [&](auto first, auto last) { equal.sign(first, last); });
      equal.link();
      on_threads(threads, cells(), [&](auto first, auto last) { equal.confirm(first, last); });
      equal.collect();
    }
    const a2v::GinEncoder encoder(params, kernels, threads, merges ? &equal.originals() : nullptr);
    std::atomic<std::int64_t> next{0};
    on_threads(threads, threads, [&](auto, auto) {
      a2v::EncodeWorker worker(encoder);
      for (std::int64_t piece = next++; piece < encoder.num_pieces(); piece = next++) {
        worker.encode(encoder.piece(piece), encoder.piece(piece + 1));
      }
    });
    if (merges) {
      on_threads(threads, cells(),
                 [&](auto first, auto last) { a2v::copy_results(params, equal, first, last); });
    }
    return result;
  }

  // mu of every node of cell b, [N, D], in double precision.
  std::vector<double> nodes(std::int64_t b) const {
    const int n = config.num_nodes;
    const a2v::Cell cell =
        a2v::unpack_cell(config.layout(), codes.data() + b * config.layout().words());
    const a2v::GinEncodeWeights at(config);
    std::vector<double> x(size_of(n * config.num_op_types));
    for (int v = 0; v < n; ++v) {
      if (cell.label[v] != 0) x[size_of(v * config.num_op_types + cell.label[v] - 1)] = 1;
    }
    for (int l = 0; l < config.num_layers; ++l) {
      x = aggregate(cell, x, l);
      for (int k = 0; k < config.num_mlp_layers; ++k) {
        const int in = k == 0 ? config.input_width(l) : config.hidden_dim;
        x = linear(x, at.weight(l, k), at.bias(l, k), in, config.hidden_dim);
        for (double& value : x) value = std::max(value, 0.0);
      }
    }
    return linear(x, at.head_weight(), at.head_bias(), config.hidden_dim, config.latent_dim);
  }

 private:
  std::vector<double> aggregate(const a2v::Cell& cell, const std::vector<double>& x, int l) const {
    const a2v::GinEncodeWeights at(config);
    const int width = config.input_width(l);
    std::vector<double> sum(x.size());
    for (int y = 0; y < config.num_nodes; ++y) {
      for (int i = 0; i < width; ++i) {
        sum[size_of(y * width + i)] += weights[size_of(at.scale(l))] * x[size_of(y * width + i)];
      }
      for (int source = 0; source < y; ++source) {
        if ((cell.preds[y] >> source & 1) == 0) continue;
        for (int i = 0; i < width; ++i) {
          const double forwards = weights[size_of(at.gates(l) + i)];
          const double backwards = weights[size_of(at.gates(l) + width + i)];
          sum[size_of(source * width + i)] += forwards * x[size_of(y * width + i)];
          sum[size_of(y * width + i)] += backwards * x[size_of(source * width + i)];
        }
      }
    }
    return sum;
  }

  std::vector<double> linear(const std::vector<double>& x, std::int64_t weight, std::int64_t bias,
                             int in, int out) const {
    std::vector<double> y(size_of(config.num_nodes * out));
    for (int v = 0; v < config.num_nodes; ++v) {
      for (int o = 0; o < out; ++o) {
        double sum = weights[size_of(bias + o)];
        for (int i = 0; i < in; ++i) {
          sum += double{weights[size_of(weight + o * in + i)]} * x[size_of(v * in + i)];
        }
        y[size_of(v * out + o)] = sum;
      }
    }
    return y;
  }
};

struct Level {
  std::string name;
  const EncodeKernels* kernels;
  double tolerance;  // of the largest error, relative to the largest value
};

std::vector<Level> levels() {
  std::vector<Level> all{{"scalar", &a2v::scalar::kEncodeKernels, 1e-5},
                         {"portable bf16", &kPortableBfloat16, 3e-2}};
#if defined(__x86_64__)
  const a2v::SimdLevel best = a2v::detected_simd_level();
  if (best >= a2v::SimdLevel::kAvx2) all.push_back({"avx2", &a2v::avx2::kEncodeKernels, 1e-5});
  if (best >= a2v::SimdLevel::kAvx512) {
    all.push_back({"avx512", &a2v::avx512::kEncodeKernels, 1e-5});
    if (__builtin_cpu_supports("avx512bf16")) {
      all.push_back({"avx512bf16", &a2v::avx512bf16::kEncodeKernels, 3e-2});
    }
  }
#endif
  return all;
}

void matches_double_precision(const Problem& problem, const Level& level) {
  const std::vector<float> result = problem.encode(*level.kernels, GinEncodeOutput::kNodes, 1, 1);
  double largest = 0;
  double error = 0;
  std::size_t i = 0;
  for (std::int64_t b = 0; b < problem.cells(); ++b) {
    for (const double value : problem.nodes(b)) {
      largest = std::max(largest, std::abs(value));
      error = std::max(error, std::abs(value - double{result[i++]}));
    }
  }
  expect(error <= level.tolerance * largest, level.name + " differs from double precision");
}

void moves_no_bit(const Problem& problem, const Level& level) {
  for (const auto output :
       {GinEncodeOutput::kReadout, GinEncodeOutput::kNodes, GinEncodeOutput::kHidden}) {
    const std::vector<float> once = problem.encode(*level.kernels, output, 0, 1);
    for (const int share : {0, 1, -1}) {
      for (const int threads : {1, 2, 3}) {
        expect(problem.encode(*level.kernels, output, share, threads) == once,
               level.name + ": sharing or threads moved a bit");
      }
    }
  }
}

// Products that leave columns out are the others to the bit: any size, rows of nothing but zeros
// and rows without one.
void leaves_out_zeros_alone(std::mt19937& random) {
  using namespace a2v::scalar;
  std::normal_distribution<float> normal;
  for (const int rows : {1, 2, 5, 8}) {
    for (const int depth : {1, 15, 16, 33}) {
      for (const int panels : {1, 2, 5}) {
        const std::ptrdiff_t stride = rows * kLanes;
        std::vector<float> left(size_of(panels_of(depth) * stride));
        std::vector<float> right(size_of(panels * depth * kLanes));
        for (float& value : right) value = normal(random);
        for (int r = 0; r < rows; ++r) {
          const auto kept = random() % 5;  // of four
          for (int k = 0; k < depth; ++k) {
            const float zero_here = k % 2 == 0 ? 0.0F : -0.0F;
            left[size_of(k / kLanes * stride + r * kLanes + k % kLanes)] =
                random() % 4 < kept ? normal(random) : zero_here;
          }
        }
        const ConstPanels a{left.data(), stride};
        const ConstPanels b{right.data(), std::ptrdiff_t{depth} * kLanes};
        std::vector<float> whole(size_of(rows * panels * kLanes));
        std::vector<float> listed(whole.size());
        const auto into = [&](std::vector<float>& to) {
          return [&to, panels](int row, int panel, V16 value) {
            store(to.data() + (row * panels + panel) * kLanes, value);
          };
        };
        std::vector<float> room(size_of(pair_room(rows, depth)));
        const PairColumns columns = pair_columns(room.data(), rows, depth);
        list_columns(a, rows, depth, columns);
        multiply(a, rows, depth, b, panels, into(whole));
        multiply_listed(a, rows, columns, b, panels, into(listed));
        expect(whole == listed, "products that leave zeros out differ");
      }
    }
  }
}

// Relabelled copies are equal cells, others are not; both directions of an edge count alike.
void finds_equal_cells() {
  const a2v::CellLayout layout{4, 3};
  const auto code = [&](std::initializer_list<std::pair<int, int>> edges,
                        std::initializer_list<int> labels) {
    a2v::Cell cell;
    for (const auto& [from, to] : edges) {
      cell.preds[to] = static_cast<std::uint16_t>(cell.preds[to] | 1U << from);
    }
    std::copy(labels.begin(), labels.end(), cell.label);
    std::uint64_t words = 0;
    a2v::pack_cell(layout, cell, &words);
    return words;
  };
  const std::vector<std::uint64_t> codes{
      code({{0, 1}, {1, 2}, {2, 3}}, {1, 2, 3, 1}), code({{0, 1}, {1, 3}, {2, 3}}, {1, 3, 1, 2}),
      code({{0, 1}, {1, 2}, {2, 3}}, {1, 3, 2, 1}), code({{0, 1}, {1, 2}}, {1, 2, 3, 0}),
      code({{0, 1}, {1, 2}, {2, 3}}, {1, 2, 3, 1})};
  a2v::EqualCells equal(layout, 3, codes.data(), 5);
  equal.sign(0, 5);
  equal.link();
  equal.confirm(0, 5);
  equal.collect();
  expect(equal.originals() == std::vector<std::int64_t>{0, 3}, "equal cells: wrong originals");
  std::uint8_t image[a2v::kMaxNodes];
  equal.match(1, image);
  expect(std::vector<int>(image, image + 4) == std::vector<int>{3, 2, 0, 1},
         "equal cells: wrong nodes");
  expect(!a2v::match_nodes(layout, codes.data(), codes.data() + 3, 3, image),
         "equal cells: different ones match");
}

}  // namespace

int main() {
  finds_equal_cells();
  std::mt19937 random(7);
  leaves_out_zeros_alone(random);
  const GinEncodeConfig configs[] = {{7, 5, 32, 16, 3, 2, false, 0},
                                     {2, 1, 5, 3, 1, 1, true, 0},
                                     {11, 11, 33, 17, 2, 3, true, 0},
                                     {16, 254, 16, 1, 2, 1, false, 0}};
  for (const Level& level : levels()) {
    for (const GinEncodeConfig& config : configs) {
      for (const bool gated : {false, true}) {
        const Problem problem(config, 53, gated, random);
        matches_double_precision(problem, level);
        moves_no_bit(problem, level);
      }
    }
    // Beyond one chunk, and enough colours for the tables to grow.
    moves_no_bit(Problem({7, 5, 16, 4, 3, 1, false, 0}, 1501, true, random), level);
  }
  std::puts("gin_encode: all tests passed");
  return 0;
}

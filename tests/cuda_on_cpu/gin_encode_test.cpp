// SPDX-License-Identifier: Apache-2.0
// gin_encode.cu and gin_encode_prepare.cu against the formula in double precision: every output,
// precision and width, tiles full and not, several a block, gated encoders, absent nodes, models
// whose states leave fp16's range; the same bits under every order of threads; NaN for corrupt
// codes.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <vector>

#include "gin_encode/gin_encode_cuda.h"

namespace {

using a2v::GinEncodeConfig;
using a2v::GinEncodeOutput;
using a2v::GinEncodePrecision;
using cuda_on_cpu::Guarded;

struct Case {
  GinEncodeConfig config;
  std::int64_t cells = 19;
  bool gated = false;
  double magnitude = 1.0;  // of the first layer's weights
};

std::vector<float> random_weights(const Case& c, std::mt19937& random) {
  const a2v::GinEncodeWeights offsets(c.config);
  std::vector<float> weights(static_cast<std::size_t>(offsets.size()));
  std::normal_distribution<double> normal;
  const auto fill = [&](std::int64_t first, std::int64_t count, double deviation) {
    for (std::int64_t i = first; i < first + count; ++i) {
      weights[static_cast<std::size_t>(i)] = static_cast<float>(deviation * normal(random));
    }
  };
  const std::int64_t hidden = c.config.hidden_dim;
  for (int layer = 0; layer < c.config.num_layers; ++layer) {
    const std::int64_t width = c.config.input_width(layer);
    const double factor = layer == 0 ? c.magnitude : 1.0;
    weights[static_cast<std::size_t>(offsets.scale(layer))] = 1.25F;
    for (std::int64_t i = 0; i < 2 * width; ++i) {
      weights[static_cast<std::size_t>(offsets.gates(layer) + i)] =
          c.gated ? static_cast<float>(normal(random)) : 1.0F;
    }
    for (int k = 0; k < c.config.num_mlp_layers; ++k) {
      const std::int64_t in = k == 0 ? width : hidden;
      fill(offsets.weight(layer, k), hidden * in, factor / std::sqrt(static_cast<double>(in)));
      fill(offsets.bias(layer, k), hidden, 0.5 * c.magnitude);
    }
  }
  fill(offsets.head_weight(), c.config.latent_dim * hidden, 0.1);
  fill(offsets.head_bias(), c.config.latent_dim, 0.1);
  return weights;
}

std::vector<std::int64_t> random_codes(const Case& c, std::mt19937& random) {
  const a2v::CellLayout layout = c.config.layout();
  const auto words = static_cast<std::size_t>(layout.words());
  std::vector<std::int64_t> codes(static_cast<std::size_t>(c.cells) * words);
  for (std::size_t b = 0; b < static_cast<std::size_t>(c.cells); ++b) {
    a2v::Cell cell;
    for (int v = 0; v < layout.num_nodes; ++v) {
      cell.label[v] =
          static_cast<std::uint8_t>(random() % static_cast<unsigned>(layout.num_op_types + 1));
      cell.preds[v] = static_cast<std::uint16_t>(random() & random());
    }
    a2v::pack_cell(layout, cell, reinterpret_cast<std::uint64_t*>(&codes[b * words]));
  }
  return codes;
}

using Matrix = std::vector<std::vector<double>>;

Matrix linear(const Matrix& x, const float* weight, const float* bias, int out, bool relu) {
  Matrix y(x.size(), std::vector<double>(static_cast<std::size_t>(out)));
  for (std::size_t v = 0; v < x.size(); ++v) {
    const std::size_t in = x[v].size();
    for (std::size_t o = 0; o < static_cast<std::size_t>(out); ++o) {
      double sum = bias[o];
      for (std::size_t i = 0; i < in; ++i) sum += x[v][i] * weight[o * in + i];
      y[v][o] = relu && sum < 0 ? 0.0 : sum;
    }
  }
  return y;
}

// A + A^T with gates, in place.
Matrix aggregate(const Matrix& x, const a2v::Cell& cell, double scale, const float* gates) {
  Matrix y = x;
  const std::size_t width = x[0].size();
  for (auto& row : y) {
    for (double& value : row) value *= scale;
  }
  for (std::size_t v = 0; v < x.size(); ++v) {
    for (std::size_t u = 0; u < v; ++u) {
      if ((cell.preds[v] >> u & 1) == 0) continue;
      for (std::size_t c = 0; c < width; ++c) {
        y[u][c] += gates[c] * x[v][c];
        y[v][c] += gates[width + c] * x[u][c];
      }
    }
  }
  return y;
}

std::vector<double> read_out(const Matrix& x, const a2v::Cell& cell, bool sum) {
  std::vector<double> total(x[0].size());
  for (std::size_t v = 0; v < x.size(); ++v) {
    const double share =
        sum ? (cell.label[v] != 0 ? 1.0 : 0.0) : 1.0 / static_cast<double>(x.size());
    for (std::size_t c = 0; c < total.size(); ++c) total[c] += share * x[v][c];
  }
  return total;
}

// What one cell contributes to the result.
std::vector<double> encode(const Case& c, const std::vector<float>& weights, const a2v::Cell& cell,
                           GinEncodeOutput output) {
  const a2v::GinEncodeWeights offsets(c.config);
  Matrix x(static_cast<std::size_t>(c.config.num_nodes),
           std::vector<double>(static_cast<std::size_t>(c.config.num_op_types)));
  for (std::size_t v = 0; v < x.size(); ++v) {
    if (cell.label[v] != 0) x[v][cell.label[v] - 1U] = 1.0;
  }
  std::vector<double> hidden;
  for (int layer = 0; layer < c.config.num_layers; ++layer) {
    x = aggregate(x, cell, weights[static_cast<std::size_t>(offsets.scale(layer))],
                  weights.data() + offsets.gates(layer));
    for (int k = 0; k < c.config.num_mlp_layers; ++k) {
      x = linear(x, weights.data() + offsets.weight(layer, k),
                 weights.data() + offsets.bias(layer, k), c.config.hidden_dim, true);
    }
    const std::vector<double> part = read_out(x, cell, c.config.sum_readout);
    hidden.insert(hidden.end(), part.begin(), part.end());
  }
  if (output == GinEncodeOutput::kHidden) return hidden;
  const Matrix mu = linear(x, weights.data() + offsets.head_weight(),
                           weights.data() + offsets.head_bias(), c.config.latent_dim, false);
  if (output == GinEncodeOutput::kReadout) return read_out(mu, cell, c.config.sum_readout);
  std::vector<double> rows;
  for (const auto& row : mu) rows.insert(rows.end(), row.begin(), row.end());
  return rows;
}

struct Model {
  std::vector<float> weights;
  std::vector<std::int64_t> codes;
};

Model random_model(const Case& c) {
  std::mt19937 random(7);
  std::vector<float> weights = random_weights(c, random);
  return {std::move(weights), random_codes(c, random)};
}

std::vector<double> expected_result(const Case& c, const Model& model, GinEncodeOutput output) {
  const auto words = static_cast<std::size_t>(c.config.layout().words());
  std::vector<double> expected;
  for (std::size_t b = 0; b < static_cast<std::size_t>(c.cells); ++b) {
    const auto* code = reinterpret_cast<const std::uint64_t*>(&model.codes[b * words]);
    const a2v::Cell cell = a2v::unpack_cell(c.config.layout(), code);
    const std::vector<double> row = encode(c, model.weights, cell, output);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  return expected;
}

std::vector<float> run(const Case& c, const Model& model, GinEncodeOutput output,
                       GinEncodePrecision precision, std::size_t size) {
  const Guarded<float> weights(model.weights);
  const Guarded<std::int64_t> codes(model.codes);
  Guarded<float> result(size);
  Guarded<float> workspace(a2v::gin_encode_workspace_bytes(c.config, precision) / sizeof(float));
  a2v::launch_gin_encode({.config = c.config,
                          .output = output,
                          .precision = precision,
                          .num_cells = c.cells,
                          .codes = codes.data(),
                          .weights = weights.data(),
                          .result = result.data()},
                         workspace.data(), nullptr);
  result.check();
  workspace.check();
  return {result.data(), result.data() + result.size()};
}

void require(bool condition, const char* what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

constexpr double kTolerances[] = {2e-6, 4e-3,
                                  3e-2};  // of a precision, relative to the largest value

void matches_formula(const Case& c, GinEncodeOutput output, GinEncodePrecision precision) {
  const Model model = random_model(c);
  const std::vector<double> expected = expected_result(c, model, output);
  const std::vector<float> result = run(c, model, output, precision, expected.size());
  double largest = 0.0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  const double tolerance = kTolerances[static_cast<int>(precision)] * largest;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    require(std::abs(result[i] - expected[i]) <= tolerance, "an element is off");
  }
}

void same_bits_in_every_order(const Case& c) {
  const Model model = random_model(c);
  const auto size = static_cast<std::size_t>(c.cells * c.config.latent_dim);
  const std::vector<float> first =
      run(c, model, GinEncodeOutput::kReadout, GinEncodePrecision::kFloat32, size);
  cuda_on_cpu::for_each_schedule([&] {
    require(first == run(c, model, GinEncodeOutput::kReadout, GinEncodePrecision::kFloat32, size),
            "the order of threads changed a result");
  });
}

void corrupt_cells_are_nan(const Case& c, GinEncodeOutput output) {
  Model model = random_model(c);
  const std::vector<double> expected = expected_result(c, model, output);
  const auto words = model.codes.size() / static_cast<std::size_t>(c.cells);
  model.codes[3 * words - 1] = -1;
  const std::vector<float> result =
      run(c, model, output, GinEncodePrecision::kFloat32, expected.size());
  const std::size_t row = expected.size() / static_cast<std::size_t>(c.cells);
  for (std::size_t i = 0; i < result.size(); ++i) {
    require(std::isnan(result[i]) == (i / row == 2), "NaN where there should be none, or none");
  }
}

void run_all() {
  using enum GinEncodeOutput;
  using enum GinEncodePrecision;
  matches_formula({{7, 5, 128, 16, 4, 2, false, 0}}, kReadout, kFloat32);
  for (const GinEncodeOutput output : {kReadout, kNodes, kHidden}) {
    for (const GinEncodePrecision precision : {kFloat32, kTensorFloat32, kBFloat16}) {
      matches_formula({{7, 5, 40, 5, 2, 2, true, 0}, 40, true}, output, precision);
    }
    matches_formula({{16, 3, 200, 33, 2, 1, true, 0}, 5, true}, output, kFloat32);
    matches_formula({{2, 1, 16, 1, 1, 1, false, 0}, 130}, output, kFloat32);
    corrupt_cells_are_nan({{11, 11, 65, 16, 1, 2, true, 0}, 12}, output);
  }
  matches_formula({{11, 11, 128, 130, 1, 3, false, 0}, 3}, kNodes, kTensorFloat32);
  matches_formula({{8, 7, 256, 16, 1, 2, false, 0}, 9}, kReadout, kBFloat16);
  // States far above and below what fp16 holds.
  for (const double magnitude : {1e9, 1e-9}) {
    matches_formula({{7, 5, 64, 16, 2, 2, true, 0}, 3, true, magnitude}, kReadout, kFloat32);
    matches_formula({{7, 5, 64, 16, 2, 2, true, 0}, 3, true, magnitude}, kReadout, kTensorFloat32);
  }
  cuda_on_cpu::process().device.multiprocessors = 1;  // several tiles a block, an odd product count
  matches_formula({{7, 5, 16, 4, 2, 1, false, 0}, 150}, kReadout, kFloat32);
  same_bits_in_every_order({{7, 5, 16, 4, 2, 1, true, 0}, 80, true});
}

}  // namespace

int main() {
  try {
    run_all();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gin_encode: %s\n", error.what());
    return EXIT_FAILURE;
  }
  std::puts("gin_encode: ok");
  return EXIT_SUCCESS;
}

// SPDX-License-Identifier: Apache-2.0
// gp without torch, for the sanitizers: every instruction set that this machine runs against plain
// loops in double, on arrays of exactly the size they need, and on threads.

#include "gp/gp.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/cpu_features.h"

namespace {

constexpr int kLanes = a2v::kGpLanes;
constexpr int kSpread = 977;  // common colours, and beyond them

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Kernels {
  const char* name;
  decltype(&a2v::scalar::gp_extend) extend;
  decltype(&a2v::scalar::gp_score) score;
};

std::vector<Kernels> levels() {
  std::vector<Kernels> found = {{"scalar", &a2v::scalar::gp_extend, &a2v::scalar::gp_score}};
#if defined(__x86_64__)
  if (a2v::detected_simd_level() >= a2v::SimdLevel::kAvx2)
    found.push_back({"avx2", &a2v::avx2::gp_extend, &a2v::avx2::gp_score});
  if (a2v::detected_simd_level() >= a2v::SimdLevel::kAvx512)
    found.push_back({"avx512", &a2v::avx512::gp_extend, &a2v::avx512::gp_score});
#endif
  return found;
}

// One search: random candidates, histograms of a few colours, M points and their exact factor.
struct Case {
  int candidates, features, colours, points, capacity;
  std::int64_t panels;
  std::vector<float> values, norms, weights, factor, kernel, coefficients, solved, explained, mean;
  std::vector<std::int64_t> starts, rows, first, last;
  std::vector<std::int32_t> colour;
  std::vector<double> exact;  // [M, Q] V

  Case(int q, int d, int c, int m, std::mt19937& random)
      : candidates(q), features(d), colours(c), points(m), capacity(m + 2) {
    panels = (q + kLanes - 1) / kLanes;
    values.resize(static_cast<std::size_t>(panels * d * kLanes));
    norms.resize(static_cast<std::size_t>(panels * kLanes));
    std::normal_distribution<float> normal;
    for (int i = 0; i < q; ++i) {
      for (int k = 0; k < d; ++k) {
        at(i, k) = 0.5F * normal(random);
        norms[static_cast<std::size_t>(i)] += at(i, k) * at(i, k);
      }
    }
    fill_histograms(random);
    for (int i = 0; i < m; ++i)
      rows.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(q)));
    first = {0};
    last = {m};
    kernel = {1.3F, d == 0 ? 0.0F : c == 0 ? 1.0F : 0.4F};
    solve();
    solved.assign(static_cast<std::size_t>(panels * capacity * kLanes), NAN);
    explained.assign(norms.size(), 0.0F);
    mean.assign(norms.size(), NAN);
    coefficients.assign(static_cast<std::size_t>(m), 0.25F);
  }

  float& at(int i, int k) {
    return values[static_cast<std::size_t>((i / kLanes * features + k) * kLanes + i % kLanes)];
  }

  void fill_histograms(std::mt19937& random) {
    starts = {0};
    for (int i = 0; i < candidates; ++i) {
      std::vector<std::pair<int, float>> row;
      float square = 0;
      for (int k = 0; k < colours; ++k) {
        const auto count = static_cast<float>(random() % 3 + (k == 0 ? 1 : 0));
        if (count > 0) row.emplace_back(k, count);
        square += count * count;
      }
      for (const auto& [k, count] : row) {
        colour.push_back(kSpread * k);
        weights.push_back(count / std::sqrt(square));
      }
      starts.push_back(static_cast<std::int64_t>(colour.size()));
    }
  }

  double product(int i, int j) const {
    double sum = 0;
    for (auto e = starts[static_cast<std::size_t>(i)]; e < starts[static_cast<std::size_t>(i) + 1];
         ++e)
      for (auto f = starts[static_cast<std::size_t>(j)];
           f < starts[static_cast<std::size_t>(j) + 1]; ++f)
        if (colour[static_cast<std::size_t>(e)] == colour[static_cast<std::size_t>(f)])
          sum +=
              double{weights[static_cast<std::size_t>(e)]} * weights[static_cast<std::size_t>(f)];
    return sum;
  }

  double covariance(int i, int j) {
    double square = 0;
    for (int k = 0; k < features; ++k) square += std::pow(double{at(i, k)} - at(j, k), 2);
    const double a = std::sqrt(5 * square) * kernel[0];
    return kernel[1] * (1 + a + a * a / 3) * std::exp(-a) + (1 - kernel[1]) * product(i, j);
  }

  // V row by row; L is V at the points themselves.
  void solve() {
    const auto m = static_cast<std::size_t>(points);
    const auto q = static_cast<std::size_t>(candidates);
    factor.assign(m * m, NAN);  // what lies above the diagonal is not read
    exact.assign(m * q, 0.0);
    for (std::size_t i = 0; i < m; ++i) {
      const auto row = static_cast<std::size_t>(rows[i]);
      double left = covariance(static_cast<int>(row), static_cast<int>(row)) + 0.05;
      for (std::size_t j = 0; j < i; ++j) {
        left -= exact[j * q + row] * exact[j * q + row];
        factor[i * m + j] = static_cast<float>(exact[j * q + row]);
      }
      factor[i * m + i] = static_cast<float>(std::sqrt(left));
      for (std::size_t c = 0; c < q; ++c) {
        double value = covariance(static_cast<int>(row), static_cast<int>(c));
        for (std::size_t j = 0; j < i; ++j) value -= exact[j * q + row] * exact[j * q + c];
        exact[i * q + c] = value / std::sqrt(left);
      }
    }
  }

  a2v::GpExtendParams extend_params() {
    return {.num_features = features,
            .num_points = points,
            .capacity = capacity,
            .num_panels = panels,
            .num_candidates = candidates,
            .most_entries = colours,
            .panels = values.data(),
            .norms = norms.data(),
            .starts = starts.data(),
            .colours = colour.data(),
            .weights = weights.data(),
            .rows = rows.data(),
            .first = first.data(),
            .last = last.data(),
            .factor = factor.data(),
            .kernel = kernel.data(),
            .coefficients = coefficients.data(),
            .solved = solved.data(),
            .explained = explained.data(),
            .mean = mean.data()};
  }
};

// Panels in parts of `part`, each on a thread of its own.
void extend(const Kernels& level, Case& given, std::int64_t part) {
  const a2v::GpExtendParams params = given.extend_params();
  std::vector<std::jthread> threads;
  for (std::int64_t panel = 0; panel < given.panels; panel += part) {
    threads.emplace_back([&, panel] {
      std::vector<float> workspace(static_cast<std::size_t>(a2v::gp_extend_floats(params)));
      std::vector<std::int32_t> lines(static_cast<std::size_t>(kSpread * given.colours));
      level.extend(params, 0, panel, std::min(panel + part, given.panels), workspace.data(),
                   lines.data());
    });
  }
}

void check(const Kernels& level, Case& given) {
  const auto name = std::string(level.name) + ", " + std::to_string(given.candidates) + " x " +
                    std::to_string(given.points);
  const auto q = static_cast<std::size_t>(given.candidates);
  std::vector<double> square(q);
  for (int i = 0; i < given.points; ++i) {
    for (std::size_t c = 0; c < q; ++c) {
      const auto panel = static_cast<std::ptrdiff_t>(c) / kLanes;
      const float found = given.solved[static_cast<std::size_t>(
          (panel * given.capacity + i) * kLanes + static_cast<std::ptrdiff_t>(c) % kLanes)];
      const double wanted = given.exact[static_cast<std::size_t>(i) * q + c];
      expect(std::abs(found - wanted) < 2e-4, name + ": V");
      square[c] += wanted * wanted;
    }
  }
  for (std::size_t c = 0; c < q; ++c)
    expect(std::abs(given.explained[c] - square[c]) < 5e-4, name + ": explained");
}

void check_scores(const Kernels& level, Case& given) {
  const auto q = static_cast<std::size_t>(given.candidates);
  const float scale = 1.5F, target = 0.7F;
  std::vector<float> mean(q), variance(q);
  std::vector<float> scores(static_cast<std::size_t>(given.panels * kLanes));
  const a2v::GpAcquireParams params = {.num_panels = given.panels,
                                       .num_candidates = given.candidates,
                                       .mean = given.mean.data(),
                                       .explained = given.explained.data(),
                                       .scale = &scale,
                                       .target = &target,
                                       .means = mean.data(),
                                       .variances = variance.data()};
  level.score(params, 0, 0, given.panels, scores.data());
  for (std::size_t c = 0; c < q; ++c) {
    double wanted = 0;
    for (int i = 0; i < given.points; ++i)
      wanted += 0.25 * given.exact[static_cast<std::size_t>(i) * q + c];
    expect(std::abs(mean[c] - wanted) < 1e-3, std::string(level.name) + ": mean");
    const double deviation = std::sqrt(double{variance[c]});
    const double u = (double{mean[c]} - target) / deviation;
    const double improvement = deviation * (std::exp(-u * u / 2) / std::sqrt(2 * M_PI) +
                                            u * std::erfc(-u / std::sqrt(2)) / 2);
    if (improvement > 1e-6)
      expect(std::abs(scores[c] - std::log(improvement)) < 1e-3,
             std::string(level.name) + ": score");
  }
}

}  // namespace

int main() {
  std::mt19937 random(5);
  const int sizes[][4] = {
      {1, 1, 1, 1}, {37, 3, 4, 5}, {100, 0, 6, 26}, {130, 17, 0, 50}, {64, 33, 9, 31}};
  for (const auto& [q, d, c, m] : sizes) {
    Case given(q, d, c, m, random);
    for (const Kernels& level : levels()) {
      std::vector<float> first;
      for (const std::int64_t part : {given.panels, std::int64_t{1}}) {
        std::fill(given.explained.begin(), given.explained.end(), 0.0F);
        extend(level, given, part);
        check(level, given);
        if (first.empty()) first = given.explained;
        expect(first == given.explained, "parts change results");
      }
      check_scores(level, given);
    }
  }
  std::puts("gp_test: ok");
  return 0;
}

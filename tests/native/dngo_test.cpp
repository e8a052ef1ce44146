// SPDX-License-Identifier: Apache-2.0
// dngo without torch, for the sanitizers: every instruction set that this machine runs, on arrays
// of exactly the size they need and on threads; and the errors that functions.h states.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/cpu_features.h"
#include "dngo/dngo_cpu.h"

namespace {

using a2v::DngoLayout;

constexpr std::int64_t kSeeds = 3;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Level {
  const char* name;
  decltype(&a2v::scalar::dngo_fit) fit;
  decltype(&a2v::scalar::dngo_acquire_pack) pack;
  decltype(&a2v::scalar::dngo_acquire) acquire;
};

std::vector<Level> levels() {
  std::vector<Level> all{{"scalar", &a2v::scalar::dngo_fit, &a2v::scalar::dngo_acquire_pack,
                          &a2v::scalar::dngo_acquire}};
#if defined(__x86_64__)
  if (a2v::simd_level() >= a2v::SimdLevel::kAvx2) {
    all.push_back(
        {"avx2", &a2v::avx2::dngo_fit, &a2v::avx2::dngo_acquire_pack, &a2v::avx2::dngo_acquire});
  }
  if (a2v::simd_level() >= a2v::SimdLevel::kAvx512) {
    all.push_back({"avx512", &a2v::avx512::dngo_fit, &a2v::avx512::dngo_acquire_pack,
                   &a2v::avx512::dngo_acquire});
  }
#endif
  return all;
}

std::vector<float> normal(std::int64_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> distribution(0.0F, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

std::vector<float> exactly(std::ptrdiff_t count) {
  return std::vector<float>(static_cast<std::size_t>(count));
}

// All seeds, a thread each.
template <class Work>
void on_threads(const Work& work) {
  std::vector<std::thread> threads;
  for (std::int64_t s = 0; s < kSeeds; ++s) threads.emplace_back(work, s);
  for (std::thread& thread : threads) thread.join();
}

void trains(DngoLayout layout, int points, int batch) {
  constexpr int kEpochs = 3;
  std::mt19937 random(1);
  const std::vector<float> x = normal(kSeeds * points * layout.num_inputs, 1.0F, random);
  const std::vector<float> y = normal(kSeeds * points, 1.0F, random);
  const std::vector<std::int64_t> seeds{0, -1, 77};
  std::vector<float> initial = exactly(kSeeds * layout.size());
  std::vector<std::int32_t> order(static_cast<std::size_t>(kSeeds * kEpochs * points));
  const a2v::DngoDrawParams drawn{layout,       kEpochs,        points,
                                  seeds.data(), initial.data(), order.data()};
  on_threads([&](std::int64_t s) { a2v::dngo_draw(drawn, s); });
  std::vector<float> expected;
  for (const Level& level : levels()) {
    std::vector<float> parameters = initial;
    std::vector<float> losses = exactly(kSeeds * kEpochs);
    const a2v::DngoFitParams params{
        layout,       kEpochs,           points,       batch, 1e-2F, x.data(), y.data(),
        order.data(), parameters.data(), losses.data()};
    on_threads([&](std::int64_t s) {
      std::vector<float> workspace = exactly(a2v::dngo_fit_floats(layout));
      level.fit(params, s, workspace.data());
    });
    if (expected.empty()) expected = parameters;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expect(std::abs(parameters[i] - expected[i]) < 5e-4F, std::string(level.name) + " trains");
    }
  }
}

void predicts(DngoLayout layout, std::int64_t count) {
  std::mt19937 random(2);
  const std::int64_t hidden = layout.num_hidden;
  const std::vector<float> x = normal(count * layout.num_inputs, 1.0F, random);
  const std::vector<float> weight = normal(kSeeds * hidden * layout.num_inputs, 0.3F, random);
  const std::vector<float> bias = normal(kSeeds * hidden, 0.3F, random);
  const std::vector<float> coefficients = normal(kSeeds * hidden, 0.1F, random);
  const std::vector<float> factor = normal(kSeeds * hidden * hidden, 0.05F, random);
  const std::vector<float> noise(kSeeds, 0.01F);
  const std::vector<float> target(kSeeds, 0.5F);
  for (const Level& level : levels()) {
    std::vector<float> mean = exactly(kSeeds * count);
    std::vector<float> variance = exactly(kSeeds * count);
    const a2v::DngoAcquireParams params{layout,
                                        count,
                                        0,
                                        a2v::DngoScore::kLogImprovement,
                                        x.data(),
                                        weight.data(),
                                        bias.data(),
                                        coefficients.data(),
                                        factor.data(),
                                        noise.data(),
                                        target.data(),
                                        nullptr,
                                        mean.data(),
                                        variance.data()};
    on_threads([&](std::int64_t s) {
      std::vector<float> workspace = exactly(a2v::dngo_acquire_floats(layout));
      std::vector<float> scores = exactly(count);
      level.pack(params, s, workspace.data());
      level.acquire(params, s, 0, count, workspace.data(), scores.data());
    });
    for (std::int64_t i = 0; i < kSeeds * count; ++i) {
      const std::int64_t s = i / count;
      std::vector<double> phi(static_cast<std::size_t>(hidden));
      double wanted_mean = 0.0;
      double wanted_variance = 0.01F;
      for (std::int64_t h = 0; h < hidden; ++h) {
        const auto at = static_cast<std::size_t>(s * hidden + h);
        double z = bias[at];
        for (int d = 0; d < layout.num_inputs; ++d) {
          z += double{weight[at * static_cast<std::size_t>(layout.num_inputs) +
                             static_cast<std::size_t>(d)]} *
               x[static_cast<std::size_t>(i % count * layout.num_inputs + d)];
        }
        phi[static_cast<std::size_t>(h)] = std::tanh(z);
        wanted_mean += coefficients[at] * std::tanh(z);
        double row = 0.0;
        for (std::int64_t k = 0; k <= h; ++k) {
          row += factor[at * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(k)] *
                 phi[static_cast<std::size_t>(k)];
        }
        wanted_variance += row * row;
      }
      const auto at = static_cast<std::size_t>(i);
      expect(std::abs(mean[at] - wanted_mean) < 5e-6 * (1 + std::abs(wanted_mean)),
             std::string(level.name) + " predicts the mean");
      expect(std::abs(variance[at] / wanted_variance - 1) < 2e-5,
             std::string(level.name) + " predicts the variance");
    }
  }
}

// One hidden unit, weight 1, no bias, m = 1 and F = 0: mean = tanh(x), variance = noise, so tanh
// and the two improvements can be read off one by one.
struct Curve {
  std::vector<float> mean;
  std::vector<float> score;

  Curve(const Level& level, const std::vector<float>& x, float noise, float target,
        a2v::DngoScore kind) {
    const DngoLayout layout{1, 1};
    const auto count = static_cast<std::int64_t>(x.size());
    const float one = 1.0F;
    const float nothing = 0.0F;
    mean.resize(x.size());
    score.resize(x.size());
    std::vector<float> variance = exactly(count);
    std::vector<float> workspace = exactly(a2v::dngo_acquire_floats(layout));
    const a2v::DngoAcquireParams params{layout,  count,    0,           kind,           x.data(),
                                        &one,    &nothing, &one,        &nothing,       &noise,
                                        &target, nullptr,  mean.data(), variance.data()};
    level.pack(params, 0, workspace.data());
    level.acquire(params, 0, 0, count, workspace.data(), score.data());
  }
};

// log(density(u) + u cdf(u)) in double; the asymptotic series where the sum cancels.
double log_ratio(double u) {
  const double log_density = -0.5 * u * u - 0.91893853320467274;
  if (u < -20.0) {
    const double s = 1.0 / (u * u);
    return log_density + std::log(s * (1.0 - s * (3.0 - s * (15.0 - s * 105.0))));
  }
  const double tail = 0.5 * std::erfc(std::abs(u) / std::sqrt(2.0));
  const double below = std::exp(log_density) - std::abs(u) * tail;
  return u > 0.0 ? std::log(u + below) : std::log(below);
}

void functions_are_as_accurate_as_stated(const Level& level) {
  std::vector<float> x;
  for (int i = -120'000; i <= 120'000; ++i) x.push_back(static_cast<float>(i) * 1e-4F);
  for (float tiny = 1e-6F; tiny < 1.0F; tiny *= 1.1F) x.push_back(tiny);
  const Curve curve(level, x, 1.0F, 0.0F, a2v::DngoScore::kLogImprovement);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double wanted = std::tanh(double{x[i]});
    expect(std::abs(curve.mean[i] - wanted) <= 4e-7 * std::abs(wanted),
           std::string(level.name) + ": tanh at " + std::to_string(x[i]));
  }
  // u = tanh(x) - target for a deviation of one: from -40 to 13.
  for (const float target : {-12.0F, -3.0F, 0.0F, 3.0F, 12.0F, 39.0F}) {
    const Curve improvement(level, x, 1.0F, target, a2v::DngoScore::kLogImprovement);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double u = double{improvement.mean[i]} - target;
      const double wanted = log_ratio(u);
      expect(std::abs(improvement.score[i] - wanted) <= 3e-6 + 3e-7 * std::abs(wanted),
             std::string(level.name) + ": log improvement at " + std::to_string(u));
    }
  }
  // The released formula in float32 arithmetic has an absolute error of some roundings of u.
  const Curve released(level, x, 1.0F, 1.5F, a2v::DngoScore::kReleased);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double u = double{released.mean[i]} - 1.5;
    expect(std::abs(released.score[i] - std::exp(log_ratio(u))) <= 5e-7,
           std::string(level.name) + ": released improvement at " + std::to_string(u));
  }
}

}  // namespace

int main() {
  for (const Level& level : levels()) functions_are_as_accurate_as_stated(level);
  trains({16, 128}, 31, 10);
  trains({3, 33}, 17, 16);
  trains({1, 1}, 1, 1);
  predicts({16, 128}, 37);
  predicts({17, 50}, 33);
  predicts({1, 1}, 1);
  std::puts("dngo_test passed");
}

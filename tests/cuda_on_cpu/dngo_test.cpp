// SPDX-License-Identifier: Apache-2.0
// dngo's CUDA kernels against its CPU kernels: the same draws and, from the same scores, the same
// best candidates to the bit; training, evidence and scores to rounding.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/rank_key.h"
#include "dngo/dngo_cpu.h"
#include "dngo/dngo_cuda.h"

namespace {

using cuda_on_cpu::Guarded;

void require(bool condition, const std::string& what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

template <class T>
std::vector<T> copy_of(const Guarded<T>& guarded) {
  std::vector<T> copy(guarded.size());
  for (std::size_t i = 0; i < copy.size(); ++i) copy[i] = guarded[i];
  return copy;
}

class Numbers {
 public:
  std::vector<float> normal(std::int64_t count, float scale) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = scale * normal_(random_);
    return values;
  }
  std::vector<float> positive(std::int64_t count, float least, float scale) {
    std::vector<float> values = normal(count, scale);
    for (float& value : values) value = least + std::abs(value);
    return values;
  }
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_()) % bound; }

 private:
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
};

void close(const std::vector<float>& actual, const std::vector<float>& expected, double relative,
           double absolute, const std::string& what) {
  require(actual.size() == expected.size(), what + ": sizes differ");
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double tolerance = absolute + relative * std::abs(expected[i]);
    require(std::abs(actual[i] - expected[i]) <= tolerance,
            what + ": " + std::to_string(actual[i]) + " is not " + std::to_string(expected[i]) +
                " at " + std::to_string(i));
  }
}

void draws(a2v::DngoLayout layout, int epochs, int points) {
  const std::vector<std::int64_t> seeds{0, -3, std::int64_t{1} << 40};
  const auto count = static_cast<std::int64_t>(seeds.size());
  std::vector<float> parameters(static_cast<std::size_t>(count * layout.size()));
  std::vector<std::int32_t> order(static_cast<std::size_t>(count * epochs * points));
  a2v::DngoDrawParams params{layout, epochs, points, seeds.data(), parameters.data(), order.data()};
  for (std::int64_t s = 0; s < count; ++s) a2v::dngo_draw(params, s);
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<std::int64_t> device_seeds(seeds);
    Guarded<float> device_parameters(parameters.size());
    Guarded<std::int32_t> device_order(order.size());
    params.seed = device_seeds.data();
    params.parameters = device_parameters.data();
    params.order = device_order.data();
    a2v::dngo_draw_cuda(params, count, nullptr);
    device_parameters.check();
    device_order.check();
    require(copy_of(device_parameters) == parameters, "parameters differ");
    require(copy_of(device_order) == order, "order differs");
  });
}

// `bad_row`: a row that is none, in the second seed.
void fits(a2v::DngoLayout layout, int epochs, int points, int batch, bool bad_row) {
  constexpr std::int64_t kSeeds = 2;
  Numbers numbers;
  const std::vector<float> x = numbers.normal(kSeeds * points * layout.num_inputs, 1.0F);
  const std::vector<float> y = numbers.normal(kSeeds * points, 1.0F);
  const std::vector<std::int64_t> seeds{3, 4};
  std::vector<float> initial(static_cast<std::size_t>(kSeeds * layout.size()));
  std::vector<std::int32_t> order(static_cast<std::size_t>(kSeeds * epochs * points));
  const a2v::DngoDrawParams drawn{layout,       epochs,         points,
                                  seeds.data(), initial.data(), order.data()};
  for (std::int64_t s = 0; s < kSeeds; ++s) a2v::dngo_draw(drawn, s);
  std::vector<float> trained = initial;
  std::vector<float> losses(static_cast<std::size_t>(kSeeds * epochs));
  a2v::DngoFitParams params{layout,   epochs,   points,       batch,          1e-2F,
                            x.data(), y.data(), order.data(), trained.data(), losses.data()};
  std::vector<float> workspace(static_cast<std::size_t>(a2v::dngo_fit_floats(layout)));
  for (std::int64_t s = 0; s < kSeeds; ++s) a2v::scalar::dngo_fit(params, s, workspace.data());
  if (bad_row) order[static_cast<std::size_t>(epochs * points)] = points;
  std::vector<float> first_run;
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<float> device_x(x);
    Guarded<float> device_y(y);
    Guarded<std::int32_t> device_order(order);
    Guarded<float> parameters(initial);
    Guarded<float> device_losses(losses.size());
    params.points = device_x.data();
    params.targets = device_y.data();
    params.order = device_order.data();
    params.parameters = parameters.data();
    params.losses = device_losses.data();
    a2v::dngo_fit_cuda(params, kSeeds, nullptr);
    parameters.check();
    device_losses.check();
    std::vector<float> actual = copy_of(parameters);
    if (bad_row) {
      for (std::int64_t i = 0; i < kSeeds * layout.size(); ++i) {
        require(std::isnan(actual[static_cast<std::size_t>(i)]) == (i >= layout.size()),
                "a row that is none must spoil its seed and no other");
      }
      return;
    }
    close(actual, trained, 0, 2e-4, "parameters");  // Adam divides by gradients that may be small
    close(copy_of(device_losses), losses, 1e-4, 1e-6, "losses");
    if (first_run.empty()) first_run = actual;
    require(actual == first_run, "training depends on the order of the threads");
  });
}

void finds_evidence(int rank, int points, int hidden, bool released) {
  constexpr std::int64_t kSeeds = 3;
  Numbers numbers;
  std::vector<double> eigenvalue;
  std::vector<double> energy;
  for (const float value : numbers.normal(kSeeds * rank, 3.0F))
    eigenvalue.push_back(std::exp(value));
  for (const float value : numbers.normal(kSeeds * rank, 1.0F)) energy.push_back(value * value);
  const std::vector<double> residual{0.0, 0.3, 2.0};
  const std::vector<double> start{0.0, -3.0, 0.5, -4.0, -1.0, -2.0};
  std::vector<double> optimum(2 * kSeeds);
  a2v::DngoEvidenceParams params{
      points,        hidden,          rank,         released,      eigenvalue.data(),
      energy.data(), residual.data(), start.data(), optimum.data()};
  for (std::int64_t s = 0; s < kSeeds; ++s) a2v::dngo_evidence(params, s);
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<double> device_eigenvalue(eigenvalue);
    Guarded<double> device_energy(energy);
    Guarded<double> device_residual(residual);
    Guarded<double> device_start(start);
    Guarded<double> found(optimum.size());
    params.eigenvalue = device_eigenvalue.data();
    params.energy = device_energy.data();
    params.residual = device_residual.data();
    params.start = device_start.data();
    params.optimum = found.data();
    a2v::dngo_evidence_cuda(params, kSeeds, nullptr);
    found.check();
    for (std::size_t i = 0; i < optimum.size(); ++i) {
      require(std::abs(found[i] - optimum[i]) < 1e-6, "the optimum differs");
    }
  });
}

// Values of all arrays of an acquire call.
struct Posterior {
  std::vector<float> candidates, weight, bias, coefficients, factor, noise, target;
  std::vector<std::uint8_t> visited;

  Posterior(a2v::DngoLayout layout, std::int64_t count, std::int64_t seeds) {
    Numbers numbers;
    const std::int64_t hidden = layout.num_hidden;
    candidates = numbers.normal(count * layout.num_inputs, 1.0F);
    weight = numbers.normal(seeds * hidden * layout.num_inputs, 0.3F);
    bias = numbers.normal(seeds * hidden, 0.3F);
    coefficients = numbers.normal(seeds * hidden, 0.1F);
    factor = numbers.normal(seeds * hidden * hidden, 0.05F);  // what is above the diagonal too
    noise = numbers.positive(seeds, 1e-3F, 1e-2F);
    target = numbers.normal(seeds, 0.3F);
    visited.resize(static_cast<std::size_t>(seeds * count));
    for (std::uint8_t& gone : visited) gone = numbers.below(3) == 0 ? 1 : 0;
  }
};

a2v::DngoAcquireParams pointers(a2v::DngoLayout layout, std::int64_t count, int results,
                                a2v::DngoScore score, const Posterior& values, float* mean,
                                float* variance) {
  return {layout,
          count,
          results,
          score,
          values.candidates.data(),
          values.weight.data(),
          values.bias.data(),
          values.coefficients.data(),
          values.factor.data(),
          values.noise.data(),
          values.target.data(),
          values.visited.data(),
          mean,
          variance};
}

void scores(a2v::DngoLayout layout, std::int64_t count, a2v::DngoScore score) {
  constexpr std::int64_t kSeeds = 2;
  const Posterior values(layout, count, kSeeds);
  const auto size = static_cast<std::size_t>(kSeeds * count);
  std::vector<float> expected(size);
  std::vector<float> mean(size);
  std::vector<float> variance(size);
  std::vector<float> workspace(static_cast<std::size_t>(a2v::dngo_acquire_floats(layout)));
  a2v::DngoAcquireParams params =
      pointers(layout, count, 0, score, values, mean.data(), variance.data());
  for (std::int64_t s = 0; s < kSeeds; ++s) {
    a2v::scalar::dngo_acquire_pack(params, s, workspace.data());
    a2v::scalar::dngo_acquire(params, s, 0, count, workspace.data(), expected.data() + s * count);
  }
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<float> candidates(values.candidates);
    Guarded<float> weight(values.weight);
    Guarded<float> factor(values.factor);
    Guarded<float> actual(size);
    Guarded<float> device_mean(size);
    Guarded<float> device_variance(size);
    params.candidates = candidates.data();
    params.weight = weight.data();
    params.factor = factor.data();
    params.mean = device_mean.data();
    params.variance = device_variance.data();
    a2v::dngo_score_cuda(params, kSeeds, actual.data(), nullptr);
    actual.check();
    device_mean.check();
    device_variance.check();
    close(copy_of(device_mean), mean, 1e-5, 3e-6, "mean");
    close(copy_of(device_variance), variance, 2e-5, 0, "variance");
    close(copy_of(actual), expected, 2e-4, score == a2v::DngoScore::kReleased ? 1e-6 : 2e-4,
          "scores");
  });
}

void selects(std::int64_t count, int results) {
  constexpr std::int64_t kSeeds = 2;
  const a2v::DngoLayout layout{1, 1};
  const Posterior values(layout, count, kSeeds);
  std::vector<float> scores = Numbers().normal(kSeeds * count, 1.0F);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (i % 7 == 0) scores[i] = 0.5F;  // ties
    if (i % 31 == 0) scores[i] = std::numeric_limits<float>::quiet_NaN();
    if (i % 37 == 0) scores[i] = -std::numeric_limits<float>::infinity();
  }
  std::vector<std::uint64_t> expected;
  for (std::int64_t s = 0; s < kSeeds; ++s) {
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(results), a2v::kNoKey);
    for (std::int64_t q = 0; q < count; ++q) {
      const auto at = static_cast<std::size_t>(s * count + q);
      if (values.visited[at] == 0) {
        keys.push_back(a2v::rank_key(scores[at], static_cast<std::uint32_t>(q)));
      }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>());
    expected.insert(expected.end(), keys.begin(), keys.begin() + results);
  }
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<float> device_scores(scores);
    Guarded<std::uint8_t> visited(values.visited);
    Guarded<std::uint64_t> workspace(
        static_cast<std::size_t>(a2v::dngo_select_keys(kSeeds, count, results)));
    Guarded<float> best(expected.size());
    Guarded<std::int64_t> indices(expected.size());
    a2v::DngoAcquireParams params =
        pointers(layout, count, results, a2v::DngoScore::kReleased, values, nullptr, nullptr);
    params.visited = visited.data();
    a2v::dngo_select_cuda(params, kSeeds, device_scores.data(), workspace.data(), best.data(),
                          indices.data(), nullptr);
    workspace.check();
    best.check();
    indices.check();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      require(indices[i] == a2v::key_index(expected[i]), "another candidate was selected");
      const float wanted = a2v::key_score(expected[i]);
      require(best[i] == wanted || (std::isnan(best[i]) && std::isnan(wanted)), "score differs");
    }
  });
}

}  // namespace

int main() {
  try {
    draws({16, 128}, 2, 21);
    draws({3, 5}, 3, 1);
    draws({1, 1}, 1, 0);
    fits({16, 128}, 2, 21, 10, false);
    fits({3, 33}, 1, 37, 16, false);
    fits({1, 1}, 40, 1, 1, false);
    fits({5, 40}, 1, 11, 4, true);
    for (const bool released : {false, true}) {
      finds_evidence(40, 60, 41, released);
      finds_evidence(3, 3, 7, released);
    }
    scores({16, 128}, 33, a2v::DngoScore::kLogImprovement);
    scores({3, 50}, 1, a2v::DngoScore::kReleased);
    scores({17, 65}, 150, a2v::DngoScore::kLogImprovement);
    scores({20, 7}, 16, a2v::DngoScore::kReleased);
    selects(5000, 5);
    selects(2049, 1024);
    selects(3, 5);
    selects(0, 2);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED: %s\n", error.what());
    return 1;
  }
  std::puts("dngo_kernel_test passed");
}

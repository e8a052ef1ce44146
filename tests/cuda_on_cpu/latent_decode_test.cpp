// SPDX-License-Identifier: Apache-2.0
// latent_decode.cu against latent_decode_scalar.cpp: logits, losses, gradients and their sums, with
// and without the optional parameters, several cells a row of the partial sums.

#include "latent_decode/latent_decode.h"

#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <vector>

#include "common/partial_sums.h"

namespace {

using cuda_on_cpu::Guarded;

void require(bool condition, const char* what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

template <class T>
void require_close(const Guarded<T>& actual, const std::vector<T>& expected, const char* what) {
  actual.check();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(actual[i] - expected[i]));
    require(difference <= 1e-4 * (1 + std::fabs(static_cast<double>(expected[i]))), what);
  }
}

struct Case {
  std::int64_t cells;
  int nodes;
  int dim;
  bool bilinear;
  bool bias;
  bool packed;
};

template <class T>
std::vector<T> normal(std::size_t count, std::mt19937_64& random) {
  std::normal_distribution<double> distribution;
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(distribution(random));
  return values;
}

// Everything that the kernels read, and what the scalar kernels make of it.
template <class T>
struct Problem {
  explicit Problem(const Case& c)
      : random(static_cast<unsigned>(c.cells * 31 + c.dim)),
        entries(static_cast<std::size_t>(c.nodes * c.nodes)),
        weights(static_cast<std::size_t>(c.dim * c.dim)),
        z(normal<T>(static_cast<std::size_t>(c.cells * c.nodes * c.dim), random)),
        bilinear(normal<T>(weights, random)),
        transposed(weights),
        bias(normal<T>(entries, random)),
        dense(static_cast<std::size_t>(c.cells) * entries),
        logits_grad(normal<T>(dense.size(), random)),
        codes(static_cast<std::size_t>(c.cells * 2)),
        logits(dense.size()),
        z_grad(z.size()),
        loss_z_grad(z.size()),
        sums(weights + entries),
        loss_sums(weights + entries + 1) {
    for (std::size_t i = 0; i < weights; ++i) {
      const auto dim = static_cast<std::size_t>(c.dim);
      transposed[i % dim * dim + i / dim] = bilinear[i];
    }
    for (T& target : dense) target = static_cast<T>(random() % 2);
    for (std::int64_t& code : codes) code = static_cast<std::int64_t>(random());
    params = {c.cells,
              c.nodes,
              c.dim,
              z.data(),
              c.bilinear ? bilinear.data() : nullptr,
              c.bilinear ? transposed.data() : nullptr,
              c.bias ? bias.data() : nullptr,
              {c.packed ? nullptr : dense.data(), c.packed ? codes.data() : nullptr, 2},
              logits.data(),
              logits_grad.data(),
              z_grad.data()};
    run(c);
  }

  void run(const Case& c) {
    const auto kernels = a2v::latent_decode_scalar<T>();
    std::vector<T> scratch(static_cast<std::size_t>(a2v::latent_decode_scratch(c.nodes, c.dim)));
    const auto wanted = [&](std::vector<double>& into) {
      return a2v::LatentDecodeSums{c.bilinear ? into.data() : nullptr,
                                   c.bias ? into.data() + weights : nullptr,
                                   into.data() + weights + entries};
    };
    kernels.forward(params, 0, c.cells, scratch.data());
    kernels.backward(params, 0, c.cells, scratch.data(), wanted(sums));
    a2v::LatentDecodeParams<T> loss_params = params;
    loss_params.z_grad = loss_z_grad.data();
    kernels.loss(loss_params, 0, c.cells, scratch.data(), wanted(loss_sums));
  }

  std::mt19937_64 random;
  std::size_t entries, weights;
  std::vector<T> z, bilinear, transposed, bias, dense, logits_grad;
  std::vector<std::int64_t> codes;
  std::vector<T> logits, z_grad, loss_z_grad;
  std::vector<double> sums, loss_sums;
  a2v::LatentDecodeParams<T> params;
};

template <class T>
std::vector<T> part(const std::vector<double>& values, std::size_t first, std::size_t count) {
  const auto from = values.begin() + static_cast<std::ptrdiff_t>(first);
  return {from, from + static_cast<std::ptrdiff_t>(count)};
}

template <class T>
void agrees(const Case& c) {
  const Problem<T> want(c);
  const std::size_t numbers = want.weights + want.entries + 1;
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<T> z(want.z), bilinear(want.bilinear), transposed(want.transposed), bias(want.bias);
    Guarded<T> dense(want.dense), logits_grad(want.logits_grad);
    Guarded<std::int64_t> codes(want.codes);
    Guarded<T> logits(want.logits.size()), z_grad(want.z.size());
    Guarded<T> bilinear_grad(want.weights), bias_grad(want.entries), loss(1);
    Guarded<double> partial(static_cast<std::size_t>(a2v::partial_rows(c.cells)) * numbers);
    a2v::LatentDecodeParams<T> params = want.params;
    params.z = z.data();
    params.bilinear = c.bilinear ? bilinear.data() : nullptr;
    params.bilinear_transposed = c.bilinear ? transposed.data() : nullptr;
    params.bias = c.bias ? bias.data() : nullptr;
    params.edges.dense = c.packed ? nullptr : dense.data();
    params.edges.codes = c.packed ? codes.data() : nullptr;
    params.logits = logits.data();
    params.logits_grad = logits_grad.data();
    params.z_grad = z_grad.data();
    a2v::LatentDecodeTotals<T> totals{c.bilinear ? bilinear_grad.data() : nullptr,
                                      c.bias ? bias_grad.data() : nullptr, nullptr};
    const auto check_shared = [&](const std::vector<double>& sums) {
      if (c.bilinear) require_close(bilinear_grad, part<T>(sums, 0, want.weights), "dW differs");
      if (c.bias) require_close(bias_grad, part<T>(sums, want.weights, want.entries), "dbias");
    };

    a2v::latent_decode_forward_cuda(params, nullptr);
    require_close(logits, want.logits, "logits differ");
    a2v::latent_decode_backward_cuda(params, partial.data(), totals, nullptr);
    require_close(z_grad, want.z_grad, "z_grad differs");
    check_shared(want.sums);
    totals.loss = loss.data();
    a2v::latent_decode_loss_cuda(params, partial.data(), totals, nullptr);
    require_close(z_grad, want.loss_z_grad, "z_grad of the loss differs");
    require_close(loss, part<T>(want.loss_sums, numbers - 1, 1), "loss differs");
    check_shared(want.loss_sums);
    params.z_grad = nullptr;
    a2v::latent_decode_loss_cuda(params, partial.data(), {nullptr, nullptr, loss.data()}, nullptr);
    require_close(loss, part<T>(want.loss_sums, numbers - 1, 1), "loss without gradients differs");
    partial.check();
  });
}

}  // namespace

int main() {
  try {
    for (const bool packed : {false, true}) {
      for (const Case& c :
           {Case{9, 7, 16, true, true, packed}, Case{5, 7, 16, false, false, packed},
            Case{3, 11, 5, true, false, packed}, Case{6, 8, 33, false, true, packed},
            Case{1, 1, 1, true, true, packed}, Case{2, 16, 3, true, true, packed},
            Case{0, 7, 4, true, true, packed}}) {
        agrees<float>(c);
        agrees<double>(c);
      }
    }
    agrees<float>({2, 40, 9, true, true, false});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED: %s\n", error.what());
    return 1;
  }
  std::puts("latent_decode_kernel_test passed");
}

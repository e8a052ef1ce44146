// SPDX-License-Identifier: Apache-2.0
// gin_aggregate.cu against gin_aggregate_scalar.cpp: values, gradients and sums, dense and packed,
// with and without gates, one direction and both, widths around a warp and above a block.

#include "gin_aggregate/gin_aggregate.h"

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
  int width;
  bool packed;
  bool gates;
  bool successors;
  bool predecessors;
};

template <class T>
class Inputs {
 public:
  explicit Inputs(const Case& c) : random_(static_cast<unsigned>(c.cells * 31 + c.width)) {
    const auto count = static_cast<std::size_t>(c.cells * c.nodes * c.width);
    x = normal(count);
    grad = normal(count);
    gates = normal(2 * static_cast<std::size_t>(c.width));
    eps = {T(0.3)};
    dense = normal(static_cast<std::size_t>(c.cells * c.nodes * c.nodes));
    for (T& weight : dense) weight = random_() % 2 == 0 ? weight : T(0);
    words = (c.nodes * (c.nodes - 1) / 2 + 63) / 64;
    for (std::int64_t i = 0; i < c.cells * words; ++i) {
      codes.push_back(static_cast<std::int64_t>(random_()));
    }
  }

  std::vector<T> x, grad, gates, eps, dense;
  std::vector<std::int64_t> codes;
  int words;

 private:
  std::vector<T> normal(std::size_t count) {
    std::normal_distribution<double> distribution;
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(distribution(random_));
    return values;
  }

  std::mt19937_64 random_;
};

template <class T>
void agrees(const Case& c) {
  Inputs<T> in(c);
  const std::size_t count = in.x.size();
  const auto width = static_cast<std::size_t>(a2v::kGinAggregateSums * c.width);
  std::vector<T> want_out(count);
  std::vector<T> want_grad(count);
  std::vector<double> want_double(width);
  a2v::GinAggregateParams<T> params{
      c.cells,
      c.nodes,
      c.width,
      {c.packed ? nullptr : in.dense.data(), c.packed ? in.codes.data() : nullptr, in.words},
      in.eps.data(),
      c.gates ? in.gates.data() : nullptr,
      c.successors,
      c.predecessors,
      in.x.data(),
      want_out.data(),
      in.grad.data(),
      want_grad.data()};
  const auto size = static_cast<std::size_t>(a2v::neighbour_list_size(c.nodes));
  std::vector<int> begin(2 * (static_cast<std::size_t>(c.nodes) + 1));
  std::vector<int> node(size);
  std::vector<T> weight(size);
  const a2v::NeighbourLists<T> lists{begin.data(), node.data(), weight.data()};
  a2v::gin_aggregate_scalar<T>().forward(params, 0, c.cells, lists);
  a2v::gin_aggregate_scalar<T>().backward(params, 0, c.cells, lists, want_double.data());
  const std::vector<T> want_sums(want_double.begin(), want_double.end());

  cuda_on_cpu::for_each_schedule([&] {
    Guarded<T> x(in.x), grad(in.grad), gates(in.gates), eps(in.eps), dense(in.dense);
    Guarded<std::int64_t> codes(in.codes);
    Guarded<T> out(count), x_grad(count), sums(width);
    Guarded<double> partial(static_cast<std::size_t>(a2v::partial_rows(c.cells)) * width);
    a2v::GinAggregateParams<T> device = params;
    device.edges.dense = c.packed ? nullptr : dense.data();
    device.edges.codes = c.packed ? codes.data() : nullptr;
    device.eps = eps.data();
    device.gates = c.gates ? gates.data() : nullptr;
    device.x = x.data();
    device.out = out.data();
    device.out_grad = grad.data();
    device.x_grad = x_grad.data();
    a2v::gin_aggregate_forward_cuda(device, nullptr);
    a2v::gin_aggregate_backward_cuda(device, partial.data(), sums.data(), nullptr);
    partial.check();
    require_close(out, want_out, "out differs");
    require_close(x_grad, want_grad, "x_grad differs");
    require_close(sums, want_sums, "sums differ");
  });
}

}  // namespace

int main() {
  try {
    for (const bool packed : {false, true}) {
      for (const Case& c :
           {Case{5, 7, 40, packed, false, true, true}, Case{9, 7, 33, packed, true, true, true},
            Case{3, 11, 31, packed, false, true, false}, Case{3, 8, 5, packed, false, false, true},
            Case{2, 16, 300, packed, true, true, true}, Case{1, 1, 1, packed, false, true, true},
            Case{0, 7, 8, packed, true, true, true}}) {
        agrees<float>(c);
        agrees<double>(c);
      }
    }
    agrees<float>({2, 37, 34, false, true, true, true});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED: %s\n", error.what());
    return 1;
  }
  std::puts("gin_aggregate_kernel_test passed");
}

// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::gin_aggregate and gin_aggregate_backward on the CPU: threads,
// scratch. Schemas in library.cpp.

#include "gin_aggregate/gin_aggregate_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "common/chunks.h"
#include "common/cpu_features.h"

namespace {

using torch::stable::Tensor;

// Cells of a chunk at least: about 50 us of work, well above the cost of waking a thread.
constexpr std::int64_t kSmallestChunk = 64;

template <class T>
a2v::GinAggregateKernels<T> kernels() {
#if defined(__x86_64__)
  switch (a2v::simd_level()) {
    case a2v::SimdLevel::kAvx512:
      return a2v::gin_aggregate_avx512<T>();
    case a2v::SimdLevel::kAvx2:
      return a2v::gin_aggregate_avx2<T>();
    case a2v::SimdLevel::kScalar:
      break;
  }
#endif
  return a2v::gin_aggregate_scalar<T>();
}

// The lists of one thread.
template <class T>
class Lists {
 public:
  explicit Lists(int num_nodes)
      : begin_(2 * (num_nodes + 1)),
        node_(a2v::neighbour_list_size(num_nodes)),
        weight_(a2v::neighbour_list_size(num_nodes)) {}

  a2v::NeighbourLists<T> view() { return {begin_.data(), node_.data(), weight_.data()}; }

 private:
  std::vector<int> begin_;
  std::vector<int> node_;
  std::vector<T> weight_;
};

template <class T>
void run_forward(const a2v::GinAggregateParams<T>& params) {
  const auto forward = kernels<T>().forward;
  torch::stable::parallel_for(0, params.num_cells, kSmallestChunk,
                              [&](std::int64_t first, std::int64_t last) {
                                Lists<T> lists(params.num_nodes);
                                forward(params, first, last, lists.view());
                              });
}

template <class T>
void run_backward(const a2v::GinAggregateParams<T>& params, T* sums) {
  const auto backward = kernels<T>().backward;
  const std::int64_t width = a2v::kGinAggregateSums * params.width;
  a2v::Chunks chunks(params.num_cells, kSmallestChunk, width);
  torch::stable::parallel_for(
      0, chunks.count(), 1, [&](std::int64_t first_chunk, std::int64_t last_chunk) {
        Lists<T> lists(params.num_nodes);
        for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
          backward(params, chunks.first(chunk), chunks.last(chunk), lists.view(),
                   chunks.sums(chunk));
        }
      });
  for (std::int64_t i = 0; i < width; ++i) sums[i] = static_cast<T>(chunks.total(i));
}

template <class T>
Tensor forward_as(const a2v::GinAggregateArguments& arguments) {
  Tensor out = torch::stable::empty_like(arguments.x);
  a2v::GinAggregateParams<T> params = arguments.params<T>();
  params.out = out.mutable_data_ptr<T>();
  run_forward(params);
  return out;
}

template <class T>
std::tuple<Tensor, Tensor> backward_as(const a2v::GinAggregateArguments& arguments,
                                       const Tensor& out_grad) {
  const Tensor& x = arguments.x;
  Tensor x_grad = torch::stable::empty_like(x);
  Tensor sums = torch::stable::new_empty(x, {a2v::kGinAggregateSums, x.size(2)});
  a2v::GinAggregateParams<T> params = arguments.params<T>();
  params.out_grad = out_grad.const_data_ptr<T>();
  params.x_grad = x_grad.mutable_data_ptr<T>();
  run_backward(params, sums.mutable_data_ptr<T>());
  return {x_grad, sums};
}

Tensor gin_aggregate(const Tensor& x, const Tensor& edges, const Tensor& eps,
                     const std::optional<Tensor>& gates, bool successors, bool predecessors) {
  const a2v::GinAggregateArguments arguments(x, edges, eps, gates, successors, predecessors);
  return a2v::is_double(x) ? forward_as<double>(arguments) : forward_as<float>(arguments);
}

std::tuple<Tensor, Tensor> gin_aggregate_backward(const Tensor& out_grad, const Tensor& x,
                                                  const Tensor& edges, const Tensor& eps,
                                                  const std::optional<Tensor>& gates,
                                                  bool successors, bool predecessors) {
  const a2v::GinAggregateArguments arguments(x, edges, eps, gates, successors, predecessors);
  const Tensor grad = a2v::check_gradient("out_grad", out_grad, x, x.size(2));
  return a2v::is_double(x) ? backward_as<double>(arguments, grad)
                           : backward_as<float>(arguments, grad);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("gin_aggregate", TORCH_BOX(&gin_aggregate));
  m.impl("gin_aggregate_backward", TORCH_BOX(&gin_aggregate_backward));
}

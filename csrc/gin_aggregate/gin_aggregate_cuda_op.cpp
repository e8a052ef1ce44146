// SPDX-License-Identifier: Apache-2.0
// The operators arch2vec_fast::gin_aggregate and gin_aggregate_backward on the GPU. Schemas in
// library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>

#include "common/cuda_op.h"
#include "common/partial_sums.h"
#include "gin_aggregate/gin_aggregate_op.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
Tensor forward_as(const a2v::GinAggregateArguments& arguments, a2v::CudaStream stream) {
  Tensor out = torch::stable::empty_like(arguments.x);
  a2v::GinAggregateParams<T> params = arguments.params<T>();
  params.out = out.mutable_data_ptr<T>();
  a2v::gin_aggregate_forward_cuda(params, stream);
  return out;
}

template <class T>
std::tuple<Tensor, Tensor> backward_as(const a2v::GinAggregateArguments& arguments,
                                       const Tensor& out_grad, a2v::CudaStream stream) {
  const Tensor& x = arguments.x;
  Tensor x_grad = torch::stable::empty_like(x);
  Tensor sums = torch::stable::new_empty(x, {a2v::kGinAggregateSums, x.size(2)});
  Tensor partial = torch::stable::new_empty(
      x, {a2v::partial_rows(x.size(0)), a2v::kGinAggregateSums, x.size(2)}, ScalarType::Double);
  a2v::GinAggregateParams<T> params = arguments.params<T>();
  params.out_grad = out_grad.const_data_ptr<T>();
  params.x_grad = x_grad.mutable_data_ptr<T>();
  a2v::gin_aggregate_backward_cuda(params, partial.mutable_data_ptr<double>(),
                                   sums.mutable_data_ptr<T>(), stream);
  return {x_grad, sums};
}

Tensor gin_aggregate(const Tensor& x, const Tensor& edges, const Tensor& eps,
                     const std::optional<Tensor>& gates, bool successors, bool predecessors) {
  const a2v::OnDeviceOf device(x);
  const a2v::GinAggregateArguments arguments(x, edges, eps, gates, successors, predecessors);
  return a2v::is_double(x) ? forward_as<double>(arguments, device.stream())
                           : forward_as<float>(arguments, device.stream());
}

std::tuple<Tensor, Tensor> gin_aggregate_backward(const Tensor& out_grad, const Tensor& x,
                                                  const Tensor& edges, const Tensor& eps,
                                                  const std::optional<Tensor>& gates,
                                                  bool successors, bool predecessors) {
  const a2v::OnDeviceOf device(x);
  const a2v::GinAggregateArguments arguments(x, edges, eps, gates, successors, predecessors);
  const Tensor grad = a2v::check_gradient("out_grad", out_grad, x, x.size(2));
  return a2v::is_double(x) ? backward_as<double>(arguments, grad, device.stream())
                           : backward_as<float>(arguments, grad, device.stream());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("gin_aggregate", TORCH_BOX(&gin_aggregate));
  m.impl("gin_aggregate_backward", TORCH_BOX(&gin_aggregate_backward));
}

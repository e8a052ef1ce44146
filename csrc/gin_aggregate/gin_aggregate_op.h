// SPDX-License-Identifier: Apache-2.0
// What the CPU's and the GPU's operators gin_aggregate and gin_aggregate_backward share: checks and
// the kernel's parameters.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "common/edges_op.h"
#include "gin_aggregate/gin_aggregate.h"

namespace a2v {

// The arguments, contiguous.
struct GinAggregateArguments {
  torch::stable::Tensor x;
  torch::stable::Tensor edges;
  torch::stable::Tensor eps;
  std::optional<torch::stable::Tensor> gates;
  bool successors;
  bool predecessors;

  // The public function has worded these checks for its users; here they keep the raw operator from
  // reading out of bounds.
  GinAggregateArguments(const torch::stable::Tensor& x_in, const torch::stable::Tensor& edges_in,
                        const torch::stable::Tensor& eps_in,
                        const std::optional<torch::stable::Tensor>& gates_in, bool successors_in,
                        bool predecessors_in)
      : x(torch::stable::contiguous(x_in)),
        edges(torch::stable::contiguous(edges_in)),
        eps(torch::stable::contiguous(eps_in)),
        successors(successors_in),
        predecessors(predecessors_in) {
    check_floating("x", x, 3);
    check_edges(edges, x);
    A2V_CHECK(eps.numel() == 1, "eps: expected one number");
    check_alike("eps", eps, x);
    if (gates_in.has_value()) {
      gates = torch::stable::contiguous(*gates_in);
      check_alike("gates", *gates, x);
      A2V_CHECK(gates->dim() == 2 && gates->size(0) == 2 && gates->size(1) == x.size(2),
                "gates: expected shape [2, ", x.size(2), "]");
      A2V_CHECK(successors && predecessors, "gates: weigh both directions");
    }
  }

  template <class T>
  GinAggregateParams<T> params() const {
    return {
        .num_cells = x.size(0),
        .num_nodes = static_cast<int>(x.size(1)),
        .width = static_cast<int>(x.size(2)),
        .edges = edges_of<T>(edges),
        .eps = eps.const_data_ptr<T>(),
        .gates = gates.has_value() ? gates->const_data_ptr<T>() : nullptr,
        .successors = successors,
        .predecessors = predecessors,
        .x = x.const_data_ptr<T>(),
        .out = nullptr,
        .out_grad = nullptr,
        .x_grad = nullptr,
    };
  }
};

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// What the CPU's and the GPU's operators of latent_decode share: checks, results, the kernel's
// parameters.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "common/edges_op.h"
#include "latent_decode/latent_decode.h"

namespace a2v {

// The arguments, contiguous.
struct LatentDecodeArguments {
  torch::stable::Tensor z;
  std::optional<torch::stable::Tensor> bilinear;
  std::optional<torch::stable::Tensor> transposed;  // of bilinear
  std::optional<torch::stable::Tensor> bias;
  std::optional<torch::stable::Tensor> edges;

  // The public functions have worded these checks for their users; here they keep the raw operators
  // from reading out of bounds.
  LatentDecodeArguments(const torch::stable::Tensor& z_in,
                        const std::optional<torch::stable::Tensor>& bilinear_in,
                        const std::optional<torch::stable::Tensor>& bias_in,
                        const std::optional<torch::stable::Tensor>& edges_in)
      : z(torch::stable::contiguous(z_in)) {
    check_floating("z", z, 3);
    const std::int64_t n = z.size(1);
    const std::int64_t d = z.size(2);
    if (bilinear_in.has_value()) {
      check_alike("bilinear", *bilinear_in, z);
      A2V_CHECK(bilinear_in->dim() == 2 && bilinear_in->size(0) == d && bilinear_in->size(1) == d,
                "bilinear: expected shape [", d, ", ", d, "]");
      bilinear = torch::stable::contiguous(*bilinear_in);
      transposed = torch::stable::contiguous(torch::stable::transpose(*bilinear, 0, 1));
    }
    if (bias_in.has_value()) {
      check_alike("bias", *bias_in, z);
      A2V_CHECK(bias_in->dim() == 2 && bias_in->size(0) == n && bias_in->size(1) == n,
                "bias: expected shape [", n, ", ", n, "]");
      bias = torch::stable::contiguous(*bias_in);
    }
    if (edges_in.has_value()) {
      edges = torch::stable::contiguous(*edges_in);
      check_edges(*edges, z);
    }
  }

  template <class T>
  LatentDecodeParams<T> params() const {
    return {
        .num_cells = z.size(0),
        .num_nodes = static_cast<int>(z.size(1)),
        .latent_dim = static_cast<int>(z.size(2)),
        .z = z.const_data_ptr<T>(),
        .bilinear = data<T>(bilinear),
        .bilinear_transposed = data<T>(transposed),
        .bias = data<T>(bias),
        .edges = edges.has_value() ? edges_of<T>(*edges) : Edges<T>{},
        .logits = nullptr,
        .logits_grad = nullptr,
        .z_grad = nullptr,
    };
  }

 private:
  template <class T>
  static const T* data(const std::optional<torch::stable::Tensor>& tensor) {
    return tensor.has_value() ? tensor->const_data_ptr<T>() : nullptr;
  }
};

// Results of a pass with gradients; those that are not wanted have shape [0].
struct LatentDecodeGradients {
  torch::stable::Tensor z;         // [B, N, D]
  torch::stable::Tensor bilinear;  // [D, D]
  torch::stable::Tensor bias;      // [N, N]

  LatentDecodeGradients(const torch::stable::Tensor& z_in, bool want_z, bool want_bilinear,
                        bool want_bias)
      : z(want_z ? torch::stable::empty_like(z_in) : torch::stable::new_empty(z_in, {0})),
        bilinear(want_bilinear ? torch::stable::new_empty(z_in, {z_in.size(2), z_in.size(2)})
                               : torch::stable::new_empty(z_in, {0})),
        bias(want_bias ? torch::stable::new_empty(z_in, {z_in.size(1), z_in.size(1)})
                       : torch::stable::new_empty(z_in, {0})) {}
};

}  // namespace a2v

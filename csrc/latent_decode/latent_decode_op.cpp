// SPDX-License-Identifier: Apache-2.0
// The operators of latent_decode on the CPU: threads, scratch. Schemas in library.cpp.

#include "latent_decode/latent_decode_op.h"

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
a2v::LatentDecodeKernels<T> kernels() {
#if defined(__x86_64__)
  switch (a2v::simd_level()) {
    case a2v::SimdLevel::kAvx512:
      return a2v::latent_decode_avx512<T>();
    case a2v::SimdLevel::kAvx2:
      return a2v::latent_decode_avx2<T>();
    case a2v::SimdLevel::kScalar:
      break;
  }
#endif
  return a2v::latent_decode_scalar<T>();
}

template <class T>
std::vector<T> scratch_of(const a2v::LatentDecodeParams<T>& params) {
  return std::vector<T>(
      static_cast<std::size_t>(a2v::latent_decode_scratch(params.num_nodes, params.latent_dim)));
}

// Runs `kernel` (backward or loss) over all cells, fills the gradients of what the cells share and
// returns the sum of the losses.
template <class T>
double run_with_sums(decltype(a2v::LatentDecodeKernels<T>::loss) kernel,
                     const a2v::LatentDecodeParams<T>& params,
                     const a2v::LatentDecodeGradients& gradients) {
  const std::int64_t weights = gradients.bilinear.numel();
  const std::int64_t biases = gradients.bias.numel();
  a2v::Chunks chunks(params.num_cells, kSmallestChunk, weights + biases + 1);
  torch::stable::parallel_for(
      0, chunks.count(), 1, [&](std::int64_t first_chunk, std::int64_t last_chunk) {
        std::vector<T> scratch = scratch_of(params);
        for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
          double* sums = chunks.sums(chunk);
          kernel(params, chunks.first(chunk), chunks.last(chunk), scratch.data(),
                 {.bilinear = weights == 0 ? nullptr : sums,
                  .bias = biases == 0 ? nullptr : sums + weights,
                  .loss = sums + weights + biases});
        }
      });
  T* bilinear = weights == 0 ? nullptr : gradients.bilinear.mutable_data_ptr<T>();
  T* bias = biases == 0 ? nullptr : gradients.bias.mutable_data_ptr<T>();
  for (std::int64_t e = 0; e < weights; ++e) bilinear[e] = static_cast<T>(chunks.total(e));
  for (std::int64_t e = 0; e < biases; ++e) bias[e] = static_cast<T>(chunks.total(weights + e));
  return chunks.total(weights + biases);
}

template <class T>
Tensor decode_as(const a2v::LatentDecodeArguments& arguments) {
  const Tensor& z = arguments.z;
  Tensor logits = torch::stable::new_empty(z, {z.size(0), z.size(1), z.size(1)});
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.logits = logits.mutable_data_ptr<T>();
  const auto forward = kernels<T>().forward;
  torch::stable::parallel_for(0, params.num_cells, kSmallestChunk,
                              [&](std::int64_t first, std::int64_t last) {
                                std::vector<T> scratch = scratch_of(params);
                                forward(params, first, last, scratch.data());
                              });
  return logits;
}

template <class T>
void backward_as(const a2v::LatentDecodeArguments& arguments, const Tensor& logits_grad,
                 const a2v::LatentDecodeGradients& gradients) {
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.logits_grad = logits_grad.const_data_ptr<T>();
  params.z_grad = gradients.z.mutable_data_ptr<T>();
  run_with_sums<T>(kernels<T>().backward, params, gradients);
}

template <class T>
void loss_as(const a2v::LatentDecodeArguments& arguments, bool wanted, const Tensor& loss,
             const a2v::LatentDecodeGradients& gradients) {
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.z_grad = wanted ? gradients.z.mutable_data_ptr<T>() : nullptr;
  *loss.mutable_data_ptr<T>() =
      static_cast<T>(run_with_sums<T>(kernels<T>().loss, params, gradients));
}

Tensor inner_product_decode(const Tensor& z, const std::optional<Tensor>& bilinear,
                            const std::optional<Tensor>& bias) {
  const a2v::LatentDecodeArguments arguments(z, bilinear, bias, std::nullopt);
  return a2v::is_double(z) ? decode_as<double>(arguments) : decode_as<float>(arguments);
}

std::tuple<Tensor, Tensor, Tensor> inner_product_decode_backward(
    const Tensor& logits_grad, const Tensor& z, const std::optional<Tensor>& bilinear,
    bool want_bias) {
  const a2v::LatentDecodeArguments arguments(z, bilinear, std::nullopt, std::nullopt);
  const Tensor grad = a2v::check_gradient("logits_grad", logits_grad, z, z.size(1));
  const a2v::LatentDecodeGradients gradients(arguments.z, true, bilinear.has_value(), want_bias);
  if (a2v::is_double(z)) {
    backward_as<double>(arguments, grad, gradients);
  } else {
    backward_as<float>(arguments, grad, gradients);
  }
  return {gradients.z, gradients.bilinear, gradients.bias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> inner_product_loss(const Tensor& z, const Tensor& edges,
                                                              const std::optional<Tensor>& bilinear,
                                                              const std::optional<Tensor>& bias,
                                                              bool wanted) {
  const a2v::LatentDecodeArguments arguments(z, bilinear, bias, edges);
  const a2v::LatentDecodeGradients gradients(arguments.z, wanted, wanted && bilinear.has_value(),
                                             wanted && bias.has_value());
  Tensor loss = torch::stable::new_empty(arguments.z, {});
  if (a2v::is_double(z)) {
    loss_as<double>(arguments, wanted, loss, gradients);
  } else {
    loss_as<float>(arguments, wanted, loss, gradients);
  }
  return {loss, gradients.z, gradients.bilinear, gradients.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) {
  m.impl("inner_product_decode", TORCH_BOX(&inner_product_decode));
  m.impl("inner_product_decode_backward", TORCH_BOX(&inner_product_decode_backward));
  m.impl("inner_product_loss", TORCH_BOX(&inner_product_loss));
}

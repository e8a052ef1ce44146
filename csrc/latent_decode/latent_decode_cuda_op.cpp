// SPDX-License-Identifier: Apache-2.0
// The operators of latent_decode on the GPU. Schemas in library.cpp.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>

#include "common/cuda_op.h"
#include "common/partial_sums.h"
#include "latent_decode/latent_decode_op.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What a block may have on every GPU that the kernels are built for.
constexpr std::int64_t kMostSharedBytes = 160 * 1024;

// One cell must fit into the shared memory of a block.
void check_size(const Tensor& z, std::int64_t sums) {
  const std::int64_t bytes =
      a2v::latent_decode_shared_bytes(z.size(1), z.size(2), sums, a2v::is_double(z) ? 8 : 4);
  A2V_CHECK(bytes <= kMostSharedBytes, "z: a cell of ", z.size(1), " x ", z.size(2),
            " numbers needs ", bytes, " bytes of shared memory, the GPU kernels have ",
            kMostSharedBytes, "; use smaller cells or reference.inner_product_*");
}

template <class T>
T* data_or_null(const Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.mutable_data_ptr<T>();
}

// Scratch of a pass that sums over cells.
Tensor partial_of(const Tensor& z, const a2v::LatentDecodeGradients& gradients) {
  const std::int64_t width = gradients.bilinear.numel() + gradients.bias.numel() + 1;
  check_size(z, width);
  return torch::stable::new_empty(z, {a2v::partial_rows(z.size(0)), width}, ScalarType::Double);
}

template <class T>
Tensor decode_as(const a2v::LatentDecodeArguments& arguments, a2v::CudaStream stream) {
  const Tensor& z = arguments.z;
  check_size(z, 0);
  Tensor logits = torch::stable::new_empty(z, {z.size(0), z.size(1), z.size(1)});
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.logits = logits.mutable_data_ptr<T>();
  a2v::latent_decode_forward_cuda(params, stream);
  return logits;
}

template <class T>
void backward_as(const a2v::LatentDecodeArguments& arguments, const Tensor& logits_grad,
                 const a2v::LatentDecodeGradients& gradients, a2v::CudaStream stream) {
  const Tensor partial = partial_of(arguments.z, gradients);
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.logits_grad = logits_grad.const_data_ptr<T>();
  params.z_grad = gradients.z.mutable_data_ptr<T>();
  a2v::latent_decode_backward_cuda<T>(
      params, partial.mutable_data_ptr<double>(),
      {data_or_null<T>(gradients.bilinear), data_or_null<T>(gradients.bias), nullptr}, stream);
}

template <class T>
void loss_as(const a2v::LatentDecodeArguments& arguments, bool wanted, const Tensor& loss,
             const a2v::LatentDecodeGradients& gradients, a2v::CudaStream stream) {
  const Tensor partial = partial_of(arguments.z, gradients);
  a2v::LatentDecodeParams<T> params = arguments.params<T>();
  params.z_grad = wanted ? gradients.z.mutable_data_ptr<T>() : nullptr;
  a2v::latent_decode_loss_cuda<T>(params, partial.mutable_data_ptr<double>(),
                                  {data_or_null<T>(gradients.bilinear),
                                   data_or_null<T>(gradients.bias), loss.mutable_data_ptr<T>()},
                                  stream);
}

Tensor inner_product_decode(const Tensor& z, const std::optional<Tensor>& bilinear,
                            const std::optional<Tensor>& bias) {
  const a2v::OnDeviceOf device(z);
  const a2v::LatentDecodeArguments arguments(z, bilinear, bias, std::nullopt);
  return a2v::is_double(z) ? decode_as<double>(arguments, device.stream())
                           : decode_as<float>(arguments, device.stream());
}

std::tuple<Tensor, Tensor, Tensor> inner_product_decode_backward(
    const Tensor& logits_grad, const Tensor& z, const std::optional<Tensor>& bilinear,
    bool want_bias) {
  const a2v::OnDeviceOf device(z);
  const a2v::LatentDecodeArguments arguments(z, bilinear, std::nullopt, std::nullopt);
  const Tensor grad = a2v::check_gradient("logits_grad", logits_grad, z, z.size(1));
  const a2v::LatentDecodeGradients gradients(arguments.z, true, bilinear.has_value(), want_bias);
  if (a2v::is_double(z)) {
    backward_as<double>(arguments, grad, gradients, device.stream());
  } else {
    backward_as<float>(arguments, grad, gradients, device.stream());
  }
  return {gradients.z, gradients.bilinear, gradients.bias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> inner_product_loss(const Tensor& z, const Tensor& edges,
                                                              const std::optional<Tensor>& bilinear,
                                                              const std::optional<Tensor>& bias,
                                                              bool wanted) {
  const a2v::OnDeviceOf device(z);
  const a2v::LatentDecodeArguments arguments(z, bilinear, bias, edges);
  const a2v::LatentDecodeGradients gradients(arguments.z, wanted, wanted && bilinear.has_value(),
                                             wanted && bias.has_value());
  Tensor loss = torch::stable::new_empty(arguments.z, {});
  if (a2v::is_double(z)) {
    loss_as<double>(arguments, wanted, loss, gradients, device.stream());
  } else {
    loss_as<float>(arguments, wanted, loss, gradients, device.stream());
  }
  return {loss, gradients.z, gradients.bilinear, gradients.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) {
  m.impl("inner_product_decode", TORCH_BOX(&inner_product_decode));
  m.impl("inner_product_decode_backward", TORCH_BOX(&inner_product_decode_backward));
  m.impl("inner_product_loss", TORCH_BOX(&inner_product_loss));
}

// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::gin_encode on the GPU. Schema in library.cpp.
//
// Unlike on the CPU a code that is no cell of the layout gives NaN instead of an error: an error
// would have to wait for the device. CellBatch has refused such codes already.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <string>
#include <vector>

#include "common/cuda_op.h"
#include "gin_encode/gin_encode_cuda.h"
#include "gin_encode/gin_encode_op.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

a2v::GinEncodePrecision read_precision(const std::string& precision) {
  if (precision == "fp32") return a2v::GinEncodePrecision::kFloat32;
  if (precision == "tf32") return a2v::GinEncodePrecision::kTensorFloat32;
  A2V_CHECK(precision == "bf16", "precision: unknown ", precision, "; use fp32, tf32 or bf16");
  return a2v::GinEncodePrecision::kBFloat16;
}

Tensor gin_encode(const Tensor& codes, const Tensor& weights, std::vector<std::int64_t> config,
                  std::int64_t output, std::string precision) {
  const a2v::OnDeviceOf device(codes);
  device.check(weights, "weights");
  const a2v::GinEncodeConfig c = a2v::check_gin_encode(codes, weights, config, output);
  A2V_CHECK(c.hidden_dim <= a2v::kGinEncodeMaxHidden, "shape.hidden_dim: ", c.hidden_dim,
            " is above ", a2v::kGinEncodeMaxHidden,
            ", the most that the GPU's kernels take; encode ", "on the CPU");
  const a2v::GinEncodePrecision what_precision = read_precision(precision);
  const Tensor packed = torch::stable::contiguous(codes);
  const Tensor flat = torch::stable::contiguous(weights);
  const auto what = static_cast<a2v::GinEncodeOutput>(output);
  Tensor result = torch::stable::new_empty(
      flat, a2v::gin_encode_result_shape(c, what, packed.size(0)), ScalarType::Float);
  if (packed.size(0) == 0) {
    return result;
  }
  const std::size_t bytes = a2v::gin_encode_workspace_bytes(c, what_precision);
  Tensor workspace = torch::stable::new_empty(
      flat, {static_cast<std::int64_t>(bytes / sizeof(float))}, ScalarType::Float);
  a2v::launch_gin_encode({.config = c,
                          .output = what,
                          .precision = what_precision,
                          .num_cells = packed.size(0),
                          .codes = packed.const_data_ptr<std::int64_t>(),
                          .weights = flat.const_data_ptr<float>(),
                          .result = result.mutable_data_ptr<float>()},
                         workspace.mutable_data_ptr<float>(), device.stream());
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CUDA, m) { m.impl("gin_encode", TORCH_BOX(&gin_encode)); }

// SPDX-License-Identifier: Apache-2.0
// What every operator on the GPU starts with: the tensor's device made current, and the stream that
// torch is using on it. Host code without CUDA headers; compiled into _C_cuda only.
#pragma once

// aoti_torch_get_current_cuda_stream is declared for CUDA builds only (CMake defines USE_CUDA for
// this library). It is part of the stable interface and lies in libtorch_cuda, which torch has
// loaded before _C_cuda is.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "common/cuda_stream.h"

namespace a2v {

// Makes the tensor's device current for the lifetime of this object.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const torch::stable::Tensor& tensor)
      : index_(tensor.get_device_index()), guard_(index_) {}

  // Torch's current stream of the device.
  CudaStream stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return static_cast<CudaStream>(stream);
  }

  // Refuses a tensor that lies elsewhere: its address would be none on this device.
  void check(const torch::stable::Tensor& tensor, const char* name) const {
    A2V_CHECK(tensor.is_cuda() && tensor.get_device_index() == index_, name,
              ": expected a tensor on cuda:", index_, " like the other arguments; move it there");
  }

 private:
  std::int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace a2v

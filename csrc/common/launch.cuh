// SPDX-License-Identifier: Apache-2.0
// Starting kernels: launch(kernel, grid, block, shared_bytes, stream, arguments...) instead of
// <<<>>>, because the launch is checked, large dynamic shared memory is asked for, and the same
// line compiles over tests/cuda_on_cpu. Nothing here synchronises or allocates: all of it may be
// captured into a CUDA graph.
//
// A launch that the driver refuses throws std::runtime_error naming the kernel and the shape;
// errors during execution surface at the user's next synchronisation, as with any CUDA operator.
#pragma once

#include "common/cuda_stream.h"
#include "common/device.cuh"

#if defined(__CUDACC__)

#include <cxxabi.h>

#include <cstddef>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace a2v {

// Dynamic shared memory that a kernel gets without asking; above it, an attribute must be set.
inline constexpr std::size_t kDefaultSharedBytes = 48 * 1024;

namespace launch_detail {

inline std::string name_of(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || mangled == nullptr) return "kernel";
  int status = 0;
  char* readable = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string name = status == 0 ? readable : mangled;
  std::free(readable);
  return name.substr(0, name.find('('));
}

inline void check(cudaError_t error, const void* kernel, dim3 grid, dim3 block,
                  std::size_t shared_bytes) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // this launch reports it; the next one starts clean
  std::ostringstream message;
  message << name_of(kernel) << ": " << cudaGetErrorString(error) << " (grid " << grid.x << "x"
          << grid.y << "x" << grid.z << ", block " << block.x << "x" << block.y << "x" << block.z
          << ", " << shared_bytes << " bytes of shared memory)";
  if (error == cudaErrorNoKernelImageForDevice) {
    message << "; this build has code for compute capability 8.0 and newer only";
  }
  throw std::runtime_error(message.str());
}

inline void allow_shared_bytes(const void* kernel, dim3 grid, dim3 block,
                               std::size_t shared_bytes) {
  if (shared_bytes <= kDefaultSharedBytes) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)),
        kernel, grid, block, shared_bytes);
}

template <class... Parameters>
void launch_as(bool cooperative, void (*kernel)(Parameters...), dim3 grid, dim3 block,
               std::size_t shared_bytes, CudaStream stream, Parameters... arguments) {
  const void* function = reinterpret_cast<const void*>(kernel);
  allow_shared_bytes(function, grid, block, shared_bytes);
  void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
  const cudaError_t error =
      cooperative
          ? cudaLaunchCooperativeKernel(function, grid, block, pointers, shared_bytes, stream)
          : cudaLaunchKernel(function, grid, block, pointers, shared_bytes, stream);
  check(error, function, grid, block, shared_bytes);
}

}  // namespace launch_detail

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            CudaStream stream, std::type_identity_t<Parameters>... arguments) {
  launch_detail::launch_as<Parameters...>(false, kernel, grid, block, shared_bytes, stream,
                                          arguments...);
}

// All blocks resident at once, so that grid_sync and group_sync work; throws if they do not fit.
template <class... Parameters>
void launch_cooperative(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                        std::size_t shared_bytes, CudaStream stream,
                        std::type_identity_t<Parameters>... arguments) {
  launch_detail::launch_as<Parameters...>(true, kernel, grid, block, shared_bytes, stream,
                                          arguments...);
}

// The largest grid that launch_cooperative takes on the current device.
template <class... Parameters>
int max_cooperative_blocks(void (*kernel)(Parameters...), int block_threads,
                           std::size_t shared_bytes) {
  const void* function = reinterpret_cast<const void*>(kernel);
  const dim3 block(static_cast<unsigned>(block_threads));
  launch_detail::allow_shared_bytes(function, dim3(), block, shared_bytes);
  int device = 0;
  int processors = 0;
  int blocks_each = 0;
  launch_detail::check(cudaGetDevice(&device), function, dim3(), block, shared_bytes);
  launch_detail::check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
                       function, dim3(), block, shared_bytes);
  launch_detail::check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, kernel,
                                                                     block_threads, shared_bytes),
                       function, dim3(), block, shared_bytes);
  return processors * blocks_each;
}

// Streaming multiprocessors of the current device.
inline int multiprocessors() {
  int device = 0;
  int count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    throw std::runtime_error(std::string("cuda: ") + cudaGetErrorString(cudaGetLastError()));
  }
  return count;
}

// Dynamic shared memory that a block of the current device can have.
inline std::size_t max_shared_bytes() {
  int device = 0;
  int bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    throw std::runtime_error(std::string("cuda: ") + cudaGetErrorString(cudaGetLastError()));
  }
  return static_cast<std::size_t>(bytes);
}

// Sets `bytes` of device memory to `value` in stream order.
inline void fill_bytes(void* target, int value, std::size_t bytes, CudaStream stream) {
  const cudaError_t error = cudaMemsetAsync(target, value, bytes, stream);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(std::string("cudaMemsetAsync: ") + cudaGetErrorString(error));
  }
}

}  // namespace a2v

#endif  // __CUDACC__

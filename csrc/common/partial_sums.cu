// SPDX-License-Identifier: Apache-2.0
// See partial_sums.h. A block sums 32 columns: thread (x, y) adds the rows y, y + 32, ... of column
// x, neighbours reading neighbours, then one warp adds the 32 slices in order.

#include "common/device.cuh"
#include "common/launch.cuh"
#include "common/partial_sums.h"

namespace a2v {
namespace {

constexpr int kSlices = 32;

struct PartialShape {
  std::int64_t rows;
  std::int64_t stride;
  std::int64_t first;
  std::int64_t width;
};

template <class T>
__global__ void __launch_bounds__(kSlices* kWarpSize)
    sum_partials_kernel(const double* partial, PartialShape shape, T* out) {
  A2V_SHARED(double[kSlices * kWarpSize], slices);
  const unsigned x = threadIdx.x % kWarpSize;
  const unsigned y = threadIdx.x / kWarpSize;
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarpSize + x;
  double sum = 0;
  if (column < shape.width) {
    for (std::int64_t row = y; row < shape.rows; row += kSlices) {
      sum += partial[row * shape.stride + shape.first + column];
    }
  }
  slices[threadIdx.x] = sum;
  __syncthreads();
  if (y != 0 || column >= shape.width) return;
  double total = 0;
  for (unsigned slice = 0; slice < kSlices; ++slice) total += slices[slice * kWarpSize + x];
  out[column] = static_cast<T>(total);
}

}  // namespace

template <class T>
void sum_partials(const double* partial, std::int64_t rows, std::int64_t stride, std::int64_t first,
                  std::int64_t width, T* out, CudaStream stream) {
  if (width == 0) return;
  const auto blocks = static_cast<unsigned>((width + kWarpSize - 1) / kWarpSize);
  launch(sum_partials_kernel<T>, dim3(blocks), dim3(kSlices * kWarpSize), 0, stream, partial,
         PartialShape{rows, stride, first, width}, out);
}

template void sum_partials(const double*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                           float*, CudaStream);
template void sum_partials(const double*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                           double*, CudaStream);

}  // namespace a2v

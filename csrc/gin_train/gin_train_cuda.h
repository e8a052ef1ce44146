// SPDX-License-Identifier: Apache-2.0
// The CUDA implementation's entry point, without CUDA's or torch's headers.
#pragma once

#include "common/cuda_stream.h"
#include "gin_train/cuda_plan.h"

namespace a2v {

struct GinTrainBuffers {
  float* workspace;  // plan.workspace_bytes() of device memory, 256-byte aligned, any content
  unsigned long long* phases;  // [plan.groups * plan.blocks, TrainPhase], added to; or null
};

// What the current device offers.
TrainDevice gin_train_device();

// Runs the call of `params`, whose arrays are on the device, in stream order.
void launch_gin_train(const GinTrainParams& params, const GinTrainPlan& plan,
                      const GinTrainBuffers& buffers, CudaStream stream);

// Its variants: kTiles column tiles, weights kSlots pieces ahead.
template <int kTiles, int kSlots>
void launch_gin_train_kernel(const GinTrainParams& params, const GinTrainPlan& plan,
                             const GinTrainBuffers& buffers, CudaStream stream);

}  // namespace a2v

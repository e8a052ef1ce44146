// SPDX-License-Identifier: Apache-2.0
// The entry point of gin_train on CUDA: clears the workspace and starts the variant that the plan
// chose. The kernel: cuda_trainer.cuh.

#include "common/launch.cuh"
#include "gin_train/gin_train_cuda.h"

namespace a2v {

TrainDevice gin_train_device() { return {multiprocessors(), max_shared_bytes()}; }

void launch_gin_train(const GinTrainParams& params, const GinTrainPlan& plan,
                      const GinTrainBuffers& buffers, CudaStream stream) {
  fill_bytes(buffers.workspace, 0, plan.workspace_bytes(), stream);
  switch (plan.column_tiles) {
    case 1:
      return launch_gin_train_kernel<1, 12>(params, plan, buffers, stream);
    case 2:
      return launch_gin_train_kernel<2, 8>(params, plan, buffers, stream);
    default:
      return launch_gin_train_kernel<8, 8>(params, plan, buffers, stream);
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_train for eight column tiles: up to 64 nodes a block at a time. A file of its
// own, because each variant compiles for half a minute. See cuda_trainer.cuh.

#include "gin_train/cuda_trainer.cuh"

namespace a2v {

template void launch_gin_train_kernel<8, 8>(const GinTrainParams&, const GinTrainPlan&,
                                            const GinTrainBuffers&, CudaStream);

}  // namespace a2v

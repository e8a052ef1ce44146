// SPDX-License-Identifier: Apache-2.0
// gin_train for one column tile: up to 8 nodes a block, such as one cell of NAS-Bench-101 or 201. A
// file of its own, because each variant compiles for half a minute. See cuda_trainer.cuh.

#include "gin_train/cuda_trainer.cuh"

namespace a2v {

template void launch_gin_train_kernel<1, 12>(const GinTrainParams&, const GinTrainPlan&,
                                             const GinTrainBuffers&, CudaStream);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_train on CUDA: one cooperative kernel runs all steps of a call; nothing returns to the host.
//
// A step: the blocks that own cells run forward and backward pass for them (row phase), then all
// blocks of the group compute the weight gradients, agree on their norm, update, and meet again:
//
//   row phase | barrier | gradients | barrier | Adam | barrier
//
// In frozen mode the row phase has no barrier; in batch mode two for each batch norm, among the
// blocks that own cells. Weights stream from the L2 cache through each of those blocks
// (weight_stream.cuh), about 0.9 MB a step for the released model: at 64 bytes a cycle, 8 us, the
// floor of a small batch.
//
// Everything that another block wrote is read through the L2 cache (load_cg, cp_async_16):
// first-level caches are not coherent within a launch.
//
// Numerics: float32 with 3xTF32 products, fixed orders of summation: the same bits in every run on
// the same number of multiprocessors. Limits: check_config in cuda_plan.cpp.

#pragma once

#include "common/check.h"
#include "common/launch.cuh"
#include "gin_train/cuda_backward.cuh"
#include "gin_train/cuda_decoder.cuh"
#include "gin_train/cuda_update.cuh"
#include "gin_train/gin_train_cuda.h"

namespace a2v {

template <int kTiles, int kSlots>
class Trainer {
 public:
  using Stream = WeightStream<kTiles, kSlots>;

  __device__ Trainer(TrainBlock& block, unsigned long long* phases)
      : block_(block), stream_(block), clock_(block, phases) {}

  __device__ __forceinline__ void train_model() {
    auto* moments = reinterpret_cast<double*>(block_.at(block_.plan.shared.moments));
    for (int i = block_.thread; i < 2 * block_.plan.flat; i += block_.threads) moments[i] = 0.0;
    if (!block_.config.batch_mode) load_running(block_);
    powers_[0] = block_.plan.beta1_power;
    powers_[1] = block_.plan.beta2_power;
    const Update update(block_);
    update.publish();
    const std::int64_t steps =
        (block_.params.cells_in_call + block_.params.batch_size - 1) / block_.params.batch_size;
    block_.start_step(0);
    load_cells(block_);
    block_.sync_group();
    clock_.start();
    for (std::int64_t step = 0; step < steps; ++step) {
      block_.start_step(step);
      if (block_.cells > 0) row_phase();
      if (step + 1 < steps) prefetch_cells(step);
      block_.sync_group();
      clock_.mark(TrainPhase::kWaitRows);
      update.gradients();
      // The widest variant has no registers left for it.
      constexpr bool kAhead = kTiles < 8;
      AdamState ahead;
      if constexpr (kAhead) ahead = update.read_ahead();
      const double rate = block_.params.learning_rate[step];
      clock_.mark(TrainPhase::kGradients);
      block_.sync_group();
      clock_.mark(TrainPhase::kWaitNorm);
      const float norm = update.norm();
      update.template apply<kAhead>(adam_step(norm, rate), ahead);
      if (block_.rank == block_.plan.blocks - 1) write_losses(norm, steps);
      clock_.mark(TrainPhase::kUpdate);
      block_.sync_group();
      clock_.mark(TrainPhase::kWaitUpdate);
    }
    write_moments();
  }

 private:
  // Forward and backward pass of the block's cells; leaves its sums of small gradients and losses.
  __device__ void row_phase() {
    start_row_phase();
    OperandBuffers buffers(block_);
    encode_forward(block_, stream_, buffers);
    clock_.mark(TrainPhase::kForward);
    EncoderBackward<Stream> backward(block_, stream_, buffers);
    const int norms = block_.config.num_norms();
    for (int q = 0; q < block_.chunks(); ++q) {
      const Chunk chunk(block_, q);
      const float* operand = linear_input(block_, chunk, norms, buffers);
      Decoder<Stream>(block_, stream_, chunk).run(operand, [&](int mt, const auto& sums) {
        backward.take_outputs(chunk, norms - 1, mt, sums);
      });
    }
    clock_.mark(TrainPhase::kDecoder);
    backward.run();
    publish_sums();
    clock_.mark(TrainPhase::kBackward);
  }

  __device__ void start_row_phase() {
    const int size = block_.plan.small.size;
    const float* source = block_.work + block_.plan.workspace.small;
    float* target = block_.at(block_.plan.shared.small);
    for (int i = 4 * block_.thread; i < size; i += 4 * block_.threads) {
      cp_async_16(target + i, source + i);
    }
    cp_async_commit();
    stream_.prime();
    for (int i = block_.thread; i < size; i += block_.threads) *block_.small_grad(i) = 0.0F;
    float* parts = block_.at(block_.plan.shared.eps_parts);
    const int layers = block_.config.num_layers * block_.row_tiles();
    for (int i = block_.thread; i < layers; i += block_.threads) parts[i] = 0.0F;
    float* inputs = block_.at(block_.plan.shared.input_parts);
    for (int i = block_.thread; i < block_.config.num_op_types; i += block_.threads)
      inputs[i] = 0.0F;
    auto* losses = reinterpret_cast<double*>(block_.at(block_.plan.shared.losses));
    if (block_.thread < 3) losses[block_.thread] = 0.0;
    cp_async_wait<kSlots - 1>();
    __syncthreads();
  }

  // Sums over the block's cells to global memory, for whoever adds up the blocks.
  __device__ void publish_sums() {
    __syncthreads();
    const int tiles = block_.row_tiles();
    for (int l = block_.thread; l < block_.config.num_layers; l += block_.threads) {
      const float* parts = l == 0 ? block_.at(block_.plan.shared.input_parts)
                                  : block_.at(block_.plan.shared.eps_parts) + l * tiles;
      float sum = 0.0F;
      for (int i = 0; i < (l == 0 ? block_.config.num_op_types : tiles); ++i) sum += parts[i];
      *block_.small_grad(block_.plan.small.eps + l) = sum;
    }
    __syncthreads();
    const int size = block_.plan.small.size;
    float* target = block_.work + block_.plan.workspace.small_partials +
                    static_cast<std::int64_t>(block_.rank) * size;
    for (int i = 4 * block_.thread; i < size; i += 4 * block_.threads) {
      *reinterpret_cast<float4*>(target + i) =
          *reinterpret_cast<const float4*>(block_.small_grad(i));
    }
    const auto* losses = reinterpret_cast<const double*>(block_.at(block_.plan.shared.losses));
    if (block_.thread < 3) block_losses(block_.rank)[block_.thread] = losses[block_.thread];
    __syncthreads();
  }

  __device__ double* block_losses(int b) const {
    return reinterpret_cast<double*>(block_.work + block_.plan.workspace.losses) + 4 * b;
  }

  // The next step's cells, while others still work on this one's.
  __device__ void prefetch_cells(std::int64_t step) {
    block_.start_step(step + 1);
    load_cells(block_);
    block_.start_step(step);
  }

  __device__ AdamStep adam_step(float norm, double rate) {
    powers_[0] *= 0.9;
    powers_[1] *= 0.999;
    const float clip = block_.config.grad_clip / (norm + 1e-6F);
    return {static_cast<float>(rate / (1.0 - powers_[0])),
            static_cast<float>(sqrt(1.0 - powers_[1])), clip > 1.0F ? 1.0F : clip};
  }

  // By the last block, which has the least to update.
  __device__ void write_losses(float norm, std::int64_t steps) {
    if (block_.warp != 0) return;
    double parts[3];
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      double sum = 0.0;
      for (int b = block_.lane; b < block_.active; b += kWarpSize) {
        sum += load_cg(block_losses(b) + part);
      }
      parts[part] = warp_sum(sum);
    }
    if (block_.lane != 0) return;
    float* target = block_.params.losses + (block_.model * steps + block_.step) * kGinTrainLosses;
    target[0] = static_cast<float>(parts[0] + parts[1] + parts[2]);
    for (int part = 0; part < 3; ++part) target[1 + part] = static_cast<float>(parts[part]);
    target[4] = norm;
  }

  // Adds up the blocks' sums of mu and mu^2. Blocks beyond the first step's have none.
  __device__ void write_moments() {
    const int size = 2 * block_.plan.flat;
    auto* global = reinterpret_cast<double*>(block_.work + block_.plan.workspace.moments);
    const auto* moments = reinterpret_cast<const double*>(block_.at(block_.plan.shared.moments));
    __syncthreads();
    for (int i = block_.thread; i < size; i += block_.threads) {
      global[block_.rank * size + i] = moments[i];
    }
    block_.sync_group();
    if (block_.rank == 0) {
      for (int i = block_.thread; i < size; i += block_.threads) {
        double sum = 0.0;
        for (int b = 0; b < block_.plan.blocks; ++b) sum += load_cg(global + b * size + i);
        block_.params.moments[static_cast<std::int64_t>(block_.model) * size + i] = sum;
      }
    }
    block_.sync_group();  // before the next model's
  }

  TrainBlock& block_;
  Stream stream_;
  PhaseClock clock_;
  double powers_[2] = {};
};

template <int kTiles, int kSlots>
__global__ void __launch_bounds__(kTrainThreads, 1)
    gin_train_kernel(const __grid_constant__ GinTrainParams params,
                     const __grid_constant__ GinTrainPlan plan, float* workspace,
                     unsigned long long* phases) {
  A2V_DYN_SMEM(float, shared);
  TrainBlock block(params, plan, shared, workspace);
  if (block.group >= plan.groups) return;
  Trainer<kTiles, kSlots> trainer(block, phases);
  for (block.model = block.group; block.model < params.num_models; block.model += plan.groups) {
    trainer.train_model();
  }
  cp_async_wait<0>();
}

template <int kTiles, int kSlots>
void launch_gin_train_kernel(const GinTrainParams& params, const GinTrainPlan& plan,
                             const GinTrainBuffers& buffers, CudaStream stream) {
  const auto kernel = gin_train_kernel<kTiles, kSlots>;
  const int blocks = plan.groups * plan.blocks;
  const int resident = max_cooperative_blocks(kernel, plan.threads, plan.shared_bytes());
  A2V_CHECK(blocks <= resident, "gin_train: the device holds ", resident, " blocks at once, not ",
            blocks, "; is another process limiting it?");
  launch_cooperative(kernel, dim3(static_cast<unsigned>(blocks)),
                     dim3(static_cast<unsigned>(plan.threads)), plan.shared_bytes(), stream, params,
                     plan, buffers.workspace, buffers.phases);
}

}  // namespace a2v

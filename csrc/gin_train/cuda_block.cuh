// SPDX-License-Identifier: Apache-2.0
// What a thread of the training kernel knows of its block: where its arrays are, which cells of the
// step are its own, and the reductions that every phase uses. See cuda_plan.h for the layout.
//
// Tensor-core fragments (one warp; g = lane / 4, t = lane % 4): a result tile has 16 features by 8
// columns; the lane holds features g and g + 8 of columns 2t and 2t + 1. States that only
// elementwise work needs (outputs before batch norm and their gradients) are saved in this form,
// one float4 a lane and tile: nobody else reads them, so they need no barrier and no transposition.
#pragma once

#include "common/device.cuh"
#include "gin_train/cuda_plan.h"

namespace a2v {

struct TrainBlock {
  const GinTrainParams& params;
  const GinTrainPlan& plan;
  const GinTrainConfig& config;
  float* shared;
  float* work;  // the group's workspace
  int group, rank, model;
  int thread, threads, warp, warps, lane, g, t;
  // The step.
  std::int64_t step;
  int batch;   // its cells
  int active;  // blocks that have any
  int cells;   // of this block
  int rows;    // batch * N

  __device__ TrainBlock(const GinTrainParams& p, const GinTrainPlan& l, float* dynamic,
                        float* global)
      : params(p), plan(l), config(p.config), shared(dynamic) {
    group = static_cast<int>(blockIdx.x) / plan.blocks;
    rank = static_cast<int>(blockIdx.x) % plan.blocks;
    work = global + group * plan.workspace.size;
    thread = static_cast<int>(threadIdx.x);
    threads = static_cast<int>(blockDim.x);
    warp = thread / kWarpSize;
    warps = threads / kWarpSize;
    lane = thread % kWarpSize;
    g = lane / 4;
    t = lane % 4;
  }

  __device__ void start_step(std::int64_t index) {
    step = index;
    const std::int64_t left = params.cells_in_call - step * params.batch_size;
    batch = static_cast<int>(left < params.batch_size ? left : params.batch_size);
    active = (batch + plan.cells_per_block - 1) / plan.cells_per_block;
    rows = batch * config.num_nodes;
    cells = cells_of(rank);
  }

  __device__ int cells_of(int block) const {
    const int left = batch - block * plan.cells_per_block;
    return left < 0 ? 0 : left < plan.cells_per_block ? left : plan.cells_per_block;
  }
  __device__ int first_cell() const { return rank * plan.cells_per_block; }
  __device__ int chunks() const { return (cells + plan.chunk_cells - 1) / plan.chunk_cells; }
  __device__ int row_tiles() const { return config.hidden_dim / 16; }

  __device__ void sync_group() const {
    group_sync(barrier(0), unsigned_rank(), unsigned_of(plan.blocks));
  }
  __device__ void sync_active() const {
    group_sync(barrier(1), unsigned_rank(), unsigned_of(active));
  }

  // Shared arrays.
  __device__ float* at(int offset) const { return shared + offset; }
  __device__ const float* small(int index) const { return shared + plan.shared.small + index; }
  __device__ float* small_grad(int index) const { return shared + plan.shared.small_grad + index; }
  __device__ const float* bias(int j) const { return small(linear(j)); }
  __device__ const float* gamma(int j) const { return small(linear(j) + config.hidden_dim); }
  __device__ const float* beta(int j) const { return small(linear(j) + 2 * config.hidden_dim); }
  __device__ float* bias_grad(int j) const { return small_grad(linear(j)); }
  __device__ float* gamma_grad(int j) const { return small_grad(linear(j) + config.hidden_dim); }
  __device__ float* beta_grad(int j) const { return small_grad(linear(j) + 2 * config.hidden_dim); }
  __device__ float* mean(int j) const {
    return shared + plan.shared.norm + j * 2 * config.hidden_dim;
  }
  __device__ float* inverse_std(int j) const { return mean(j) + config.hidden_dim; }
  // Offset of layer l's gates in the packed parameters: successors; predecessors follow.
  __device__ int gates(int l) const {
    return plan.small.gates +
           (l == 0 ? 0 : 2 * round_up(config.num_op_types, 4) + (l - 1) * 2 * config.hidden_dim);
  }
  // Bits of the successors and the predecessors of each node of the block's cells.
  __device__ std::uint16_t* masks() const {
    return reinterpret_cast<std::uint16_t*>(shared + plan.shared.masks);
  }
  __device__ std::uint8_t* labels() const {  // 0: absent, else operation + 1
    return reinterpret_cast<std::uint8_t*>(shared + plan.shared.labels);
  }

  // The saved fragments of linear j (j = L*K: gradients), row tile mt, column tile `tile`.
  __device__ float4* saved(int j, int mt, int tile) const {
    const int tiles = plan.chunks * plan.chunk_tiles;
    float* base = plan.saved_in_shared
                      ? shared + plan.shared.saved
                      : work + plan.workspace.saved +
                            static_cast<std::int64_t>(rank) * (config.num_norms() + 1) *
                                row_tiles() * tiles * 128;
    return reinterpret_cast<float4*>(base) + ((j * row_tiles() + mt) * tiles + tile) * 32 + lane;
  }

  // Sum over the block; every thread gets the same bits. `scratch`: one value a warp.
  template <class T>
  __device__ T block_sum(T value) const {
    T* scratch = reinterpret_cast<T*>(shared + plan.shared.scratch);
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    T total = 0;
    for (int w = 0; w < warps; ++w) total += scratch[w];
    return total;
  }

  // The same for three values; the first three threads get one each, the others nothing.
  __device__ float block_sums(float a, float b, float c) const {
    float* scratch = shared + plan.shared.scratch;  // [warps, 4]
    a = warp_sum(a);
    b = warp_sum(b);
    c = warp_sum(c);
    __syncthreads();
    if (lane == 0) *reinterpret_cast<float4*>(scratch + 4 * warp) = make_float4(a, b, c, 0.0F);
    __syncthreads();
    float total = 0.0F;
    for (int w = 0; thread < 3 && w < warps; ++w) total += scratch[4 * w + thread];
    return total;
  }

 private:
  __device__ static unsigned unsigned_of(int n) { return static_cast<unsigned>(n); }
  __device__ unsigned unsigned_rank() const { return static_cast<unsigned>(rank); }
  __device__ int linear(int j) const { return plan.small.linear + j * 3 * config.hidden_dim; }
  __device__ unsigned* barrier(int index) const {
    return reinterpret_cast<unsigned*>(work + plan.workspace.barriers) + 32 * index;
  }
};

// Adds the cycles since the last mark to a phase, for the block's first thread; off where `counts`
// is null.
class PhaseClock {
 public:
  __device__ PhaseClock(const TrainBlock& block, unsigned long long* counts)
      : counts_(counts == nullptr || block.thread != 0
                    ? nullptr
                    : counts + blockIdx.x * static_cast<unsigned>(TrainPhase::kCount)),
        last_(0) {}

  __device__ void start() {
    if (counts_ != nullptr) last_ = clock64();
  }
  __device__ void mark(TrainPhase phase) {
    if (counts_ == nullptr) return;
    const long long now = clock64();
    atomicAdd(counts_ + static_cast<int>(phase), static_cast<unsigned long long>(now - last_));
    last_ = now;
  }

 private:
  unsigned long long* counts_;
  long long last_;
};

// Sum over the four lanes that hold one feature's columns; all four get it.
__device__ inline float quad_sum(float value) {
  value += __shfl_xor_sync(kWholeWarp, value, 1);
  return value + __shfl_xor_sync(kWholeWarp, value, 2);
}

// One chunk: cells first .. first + cells - 1 of the block, as columns 0 .. columns - 1.
struct Chunk {
  int index;
  int first;
  int cells;
  int columns;
  int tiles;
  int row;  // of its first column in the batch

  __device__ Chunk(const TrainBlock& block, int i)
      : index(i),
        first(i * block.plan.chunk_cells),
        cells(block.cells - first < block.plan.chunk_cells ? block.cells - first
                                                           : block.plan.chunk_cells),
        columns(cells * block.config.num_nodes),
        tiles((columns + 7) / 8),
        row((block.first_cell() + first) * block.config.num_nodes) {}

  // Number of column tile n among the block's.
  __device__ int tile(const TrainBlock& block, int n) const {
    return index * block.plan.chunk_tiles + n;
  }
};

}  // namespace a2v

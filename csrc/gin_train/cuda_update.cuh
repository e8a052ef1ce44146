// SPDX-License-Identifier: Apache-2.0
// The end of a step, by all blocks of the group: weight gradients, the norm, Adam.
//
// Work comes in items, item i to block i mod blocks, the same every step: a 32 x 32 tile of dW =
// dU^T V (rows of the batch are the inner dimension, dealt to the warps), or `threads` of the
// packed small parameters, whose gradients are summed over the blocks that had cells. A block keeps
// its items' gradients (the "stash") across the barrier that the norm needs, updates its
// parameters, and writes the copies that the next step reads. Every sum has a fixed order.
#pragma once

#include "gin_train/cuda_block.cuh"

namespace a2v {

constexpr float kAdamBeta2 = 0.999F;
constexpr float kAdamTiny = 1e-8F;
constexpr int kLoadsAhead = 4;  // 32 cells of 7 nodes are read at once by 8 warps

// Scalars of torch.optim.Adam's single-tensor step, in double until used.
struct AdamStep {
  float step_size;
  float root_correction2;
  float clip;

  // One element, in place.
  __device__ void update(float gradient, float& parameter, float& exp_avg,
                         float& exp_avg_sq) const {
    const float clipped = gradient * clip;
    exp_avg += (clipped - exp_avg) * 0.1F;
    exp_avg_sq = exp_avg_sq * kAdamBeta2 + clipped * clipped * 0.001F;
    parameter -= step_size * (exp_avg / (sqrtf(exp_avg_sq) / root_correction2 + kAdamTiny));
  }
};

// Four neighbouring parameters and their moments, as far as they exist.
struct AdamState {
  float parameter[4] = {};
  float exp_avg[4] = {};
  float exp_avg_sq[4] = {};

  __device__ void read(const GinTrainParams& params, int i, std::int64_t at) {
    parameter[i] = params.parameters[at];
    exp_avg[i] = params.exp_avg[at];
    exp_avg_sq[i] = params.exp_avg_sq[at];
  }
  __device__ void write(const GinTrainParams& params, int i, std::int64_t at) const {
    params.parameters[at] = parameter[i];
    params.exp_avg[at] = exp_avg[i];
    params.exp_avg_sq[at] = exp_avg_sq[i];
  }
};

// One entry of a streamed matrix in the flat parameters. The heads are two linears with the first
// one's bias between their weights.
__device__ inline int parameter_of(const TrainBlock& block, int index, int row, int col) {
  const StreamedMatrix& m = block.plan.streamed[index];
  const int latent = block.config.latent_dim;
  const int gap = index == block.plan.heads && row >= latent ? latent : 0;
  return m.weight + row * m.cols + col + gap;
}

struct Tile {
  int matrix;
  int row;
  int col;

  __device__ Tile(const TrainBlock& block, int item) : matrix(0) {
    while (matrix + 1 < block.plan.num_streamed &&
           item >= block.plan.streamed[matrix + 1].first_tile) {
      ++matrix;
    }
    const StreamedMatrix& m = block.plan.streamed[matrix];
    const int index = item - m.first_tile;
    row = index / m.tile_columns() * kGradientTile;
    col = index % m.tile_columns() * kGradientTile;
  }
};

class Update {
 public:
  __device__ explicit Update(const TrainBlock& block)
      : block_(block), model_(static_cast<std::int64_t>(block.model) * block.plan.num_parameters) {}

  // Copies of all parameters in the form that the row phase reads.
  __device__ void publish() const {
    for (int slot = 0; item_of(slot) < block_.plan.items; ++slot) {
      const int item = item_of(slot);
      if (item < block_.plan.num_tiles) {
        __syncthreads();
        publish_tile(Tile(block_, item), slot);
      } else {
        const int entry = small_entry(item);
        const int offset = parameter_of_small(entry);
        if (entry < block_.plan.small.size) {
          small_copy()[entry] = offset < 0 ? 0.0F : block_.params.parameters[model_ + offset];
        }
      }
    }
  }

  // Gradients of this block's items, and the sums of their squares.
  __device__ void gradients() const {
    for (int slot = 0; item_of(slot) < block_.plan.items; ++slot) {
      const int item = item_of(slot);
      const float squares = item < block_.plan.num_tiles ? tile_gradient(Tile(block_, item), slot)
                                                         : small_gradient(item, slot);
      const float total = block_.block_sum(squares);
      if (block_.thread == 0) block_.work[block_.plan.workspace.square_sums + item] = total;
    }
  }

  // Norm of all gradients, the same bits in every block.
  __device__ float norm() const {
    const float* sums = block_.work + block_.plan.workspace.square_sums;
    double total = 0.0;
    for (int i = block_.thread; i < block_.plan.items; i += block_.threads) {
      total += static_cast<double>(load_cg(sums + i));
    }
    return static_cast<float>(sqrt(block_.block_sum(total)));
  }

  // This thread's part of the block's first item, which most blocks have no other than: read ahead
  // of the barrier before apply().
  __device__ AdamState read_ahead() const {
    const int item = item_of(0);
    if (item >= block_.plan.items) return {};
    if (item >= block_.plan.num_tiles) return read_small(small_entry(item));
    const int first = block_.thread % (kGradientTile * kGradientTile / 4);
    return read_four(Tile(block_, item), first / (kGradientTile / 4),
                     first % (kGradientTile / 4) * 4);
  }

  template <bool kAhead>
  __device__ void apply(const AdamStep& adam, const AdamState& ahead) const {
    for (int slot = 0; item_of(slot) < block_.plan.items; ++slot) {
      const int item = item_of(slot);
      if (item < block_.plan.num_tiles) {
        update_tile<kAhead>(Tile(block_, item), slot, adam, ahead);
      } else {
        const int entry = small_entry(item);
        update_small(entry, stash(slot)[block_.thread], adam,
                     kAhead && slot == 0 ? ahead : read_small(entry));
      }
    }
  }

 private:
  __device__ int item_of(int slot) const { return slot * block_.plan.blocks + block_.rank; }
  __device__ float* small_copy() const { return block_.work + block_.plan.workspace.small; }

  __device__ float* stash(int slot) const {
    float* base =
        block_.plan.stash_in_shared
            ? block_.at(block_.plan.shared.ring) + block_.warps * kTileFloats
            : block_.work + block_.plan.workspace.stash +
                  static_cast<std::int64_t>(block_.rank) * block_.plan.stash_slots * kTileFloats;
    return base + slot * kTileFloats;
  }

  // ---- Tiles
  // --------------------------------------------------------------------------------------------

  // A lane's share of A and B for eight rows of the batch: features 4g .. 4g + 3 of both, of rows t
  // and t + 4. Features are dealt to the fragments so that these are 16-byte loads.
  struct Operands {
    float4 a[2];
    float4 b[2];
  };

  __device__ Operands load(const StreamedMatrix& m, const Tile& tile, int row, int rows) const {
    const int a_stride = round_up(m.rows, kGradientTile);
    const int b_stride = round_up(m.cols, kGradientTile);
    Operands operands;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::int64_t r = row + block_.t + 4 * i;
      const float4 zero = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      const float* a = block_.work + m.output_grad + r * a_stride + tile.row + 4 * block_.g;
      const float* b = block_.work + m.input + r * b_stride + tile.col + 4 * block_.g;
      operands.a[i] = r < rows ? load_cg(reinterpret_cast<const float4*>(a)) : zero;
      operands.b[i] = r < rows ? load_cg(reinterpret_cast<const float4*>(b)) : zero;
    }
    return operands;
  }

  __device__ static void multiply(const Operands& operands, float (&sums)[2][4][4]) {
    const Fragment4 a0(operands.a[0]), a1(operands.a[1]), b0(operands.b[0]), b1(operands.b[1]);
    float b_high[4][2];
    float b_low[4][2];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      split(b0.value[n], b_high[n][0], b_low[n][0]);
      split(b1.value[n], b_high[n][1], b_low[n][1]);
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      float a_high[4];
      float a_low[4];
      split(a0.value[2 * m], a_high[0], a_low[0]);
      split(a0.value[2 * m + 1], a_high[1], a_low[1]);
      split(a1.value[2 * m], a_high[2], a_low[2]);
      split(a1.value[2 * m + 1], a_high[3], a_low[3]);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        mma_m16n8k8_3xtf32(sums[m][n], a_high, a_low, b_high[n], b_low[n]);
      }
    }
  }

  struct Fragment4 {
    float value[4];
    __device__ explicit Fragment4(const float4& v) : value{v.x, v.y, v.z, v.w} {}
  };

  __device__ static void split(float x, float& high, float& low) {
    const SplitTf32 parts = split_tf32(x);
    high = parts.high;
    low = parts.low;
  }

  __device__ float tile_gradient(const Tile& tile, int slot) const {
    const StreamedMatrix& m = block_.plan.streamed[tile.matrix];
    const int rows = tile.matrix > block_.plan.heads ? block_.batch : block_.rows;
    float sums[2][4][4] = {};
    const int step = 8 * block_.warps;
#pragma unroll 1
    for (int row = 8 * block_.warp; row < rows; row += kLoadsAhead * step) {
      Operands operands[kLoadsAhead];
#pragma unroll
      for (int i = 0; i < kLoadsAhead; ++i) operands[i] = load(m, tile, row + i * step, rows);
#pragma unroll
      for (int i = 0; i < kLoadsAhead; ++i) multiply(operands[i], sums);
    }
    float* part = block_.at(block_.plan.shared.ring) + block_.warp * kTileFloats;
    __syncthreads();  // the ring, or the last item's partial sums
    store_partial(part, sums);
    __syncthreads();
    return reduce_tile(slot);
  }

  // The lane holds dW rows 4g .. 4g + 3 by columns 8t .. 8t + 7.
  __device__ void store_partial(float* part, const float (&sums)[2][4][4]) const {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float* target =
            part + (4 * block_.g + 2 * m + i / 2) * kTileStride + 8 * block_.t + i % 2 * 4;
        *reinterpret_cast<float4*>(target) =
            make_float4(sums[m][0][i], sums[m][1][i], sums[m][2][i], sums[m][3][i]);
      }
    }
  }

  // Runs f(row, col) for the first of every four neighbouring entries of a tile.
  template <class F>
  __device__ void each_four(F f) const {
    for (int i = block_.thread; i < kGradientTile * kGradientTile / 4; i += block_.threads) {
      f(i / (kGradientTile / 4), i % (kGradientTile / 4) * 4);
    }
  }

  // Adds up the warps' partial sums; returns this thread's sum of squares. Entries beyond the
  // matrix are zero, because the operands' padding is.
  __device__ float reduce_tile(int slot) const {
    const float* parts = block_.at(block_.plan.shared.ring);
    float* target = stash(slot);
    float squares = 0.0F;
    each_four([&](int row, int col) {
      const int offset = row * kTileStride + col;
      float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      for (int w = 0; w < block_.warps; ++w) {
        const float4 part = *reinterpret_cast<const float4*>(parts + w * kTileFloats + offset);
        sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
      }
      *reinterpret_cast<float4*>(target + offset) = sum;
      squares += sum.x * sum.x + sum.y * sum.y + sum.z * sum.z + sum.w * sum.w;
    });
    return squares;
  }

  __device__ bool inside(const Tile& tile, int row, int col) const {
    const StreamedMatrix& m = block_.plan.streamed[tile.matrix];
    return tile.row + row < m.rows && tile.col + col < m.cols;
  }

  __device__ std::int64_t parameter_at(const Tile& tile, int row, int col) const {
    return model_ + parameter_of(block_, tile.matrix, tile.row + row, tile.col + col);
  }

  __device__ AdamState read_four(const Tile& tile, int row, int col) const {
    AdamState state;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (inside(tile, row, col + i))
        state.read(block_.params, i, parameter_at(tile, row, col + i));
    }
    return state;
  }

  template <bool kAhead>
  __device__ void update_tile(const Tile& tile, int slot, const AdamStep& adam,
                              const AdamState& ahead) const {
    float* values = stash(slot);
    each_four([&](int row, int col) {
      const bool is_ahead = kAhead && slot == 0 && row * kGradientTile + col == 4 * block_.thread;
      AdamState state = is_ahead ? ahead : read_four(tile, row, col);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& value = values[row * kTileStride + col + i];
        if (inside(tile, row, col + i)) {
          adam.update(value, state.parameter[i], state.exp_avg[i], state.exp_avg_sq[i]);
          state.write(block_.params, i, parameter_at(tile, row, col + i));
        }
        value = state.parameter[i];
      }
    });
    write_copies(tile, values);
  }

  __device__ void publish_tile(const Tile& tile, int slot) const {
    float* values = stash(slot);
    each_four([&](int row, int col) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[row * kTileStride + col + i] =
            inside(tile, row, col + i) ? block_.params.parameters[parameter_at(tile, row, col + i)]
                                       : 0.0F;
      }
    });
    write_copies(tile, values);
  }

  // Both copies of a tile, padding included. W^T's reads entries that other threads wrote.
  __device__ void write_copies(const Tile& tile, const float* values) const {
    const StreamedMatrix& m = block_.plan.streamed[tile.matrix];
    const int rows = round_up(m.rows, 16);
    const int cols = round_up(m.cols, 16);
    float* copies = block_.work + block_.plan.workspace.fragments;
    __syncthreads();
    each_four([&](int row, int col) {
      if (tile.row + row < rows && tile.col + col < cols) {
        const float* v = values + row * kTileStride + col;
        *reinterpret_cast<float4*>(copies + m.forward +
                                   fragment_offset(tile.row + row, tile.col + col, cols)) =
            make_float4(v[0], v[1], v[2], v[3]);
      }
    });
    each_four([&](int col, int row) {
      if (tile.row + row < rows && tile.col + col < cols) {
        const float* v = values + row * kTileStride + col;
        *reinterpret_cast<float4*>(copies + m.backward +
                                   fragment_offset(tile.col + col, tile.row + row, rows)) =
            make_float4(v[0], v[kTileStride], v[2 * kTileStride], v[3 * kTileStride]);
      }
    });
  }

  // ---- Small parameters
  // ---------------------------------------------------------------------------------

  __device__ int small_entry(int item) const {
    return (item - block_.plan.num_tiles) * block_.threads + block_.thread;
  }

  // Offset in the flat parameters, or -1 for padding.
  __device__ int parameter_of_small(int entry) const {
    int offset = -1;
    for (int s = 0; s < block_.plan.num_segments; ++s) {
      const SmallSegment& segment = block_.plan.segments[s];
      const int within = entry - segment.first;
      if (within >= 0 && within < segment.count) offset = segment.offset + within;
    }
    return offset;
  }

  __device__ float small_gradient(int item, int slot) const {
    const int entry = small_entry(item);
    float sum = 0.0F;
    if (entry < block_.plan.small.size) {
      const float* partial = block_.work + block_.plan.workspace.small_partials + entry;
#pragma unroll 32
      for (int b = 0; b < block_.active; ++b) {
        sum += load_cg(partial + static_cast<std::int64_t>(b) * block_.plan.small.size);
      }
    }
    stash(slot)[block_.thread] = sum;
    return sum * sum;
  }

  __device__ AdamState read_small(int entry) const {
    AdamState state;
    const int offset = entry < block_.plan.small.size ? parameter_of_small(entry) : -1;
    if (offset >= 0) state.read(block_.params, 0, model_ + offset);
    return state;
  }

  __device__ void update_small(int entry, float gradient, const AdamStep& adam,
                               AdamState state) const {
    const int offset = entry < block_.plan.small.size ? parameter_of_small(entry) : -1;
    if (offset < 0) return;
    adam.update(gradient, state.parameter[0], state.exp_avg[0], state.exp_avg_sq[0]);
    state.write(block_.params, 0, model_ + offset);
    small_copy()[entry] = state.parameter[0];
  }

  const TrainBlock& block_;
  std::int64_t model_;  // offset of the model's parameters
};

}  // namespace a2v

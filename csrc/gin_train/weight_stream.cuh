// SPDX-License-Identifier: Apache-2.0
// Products of a weight matrix with the block's node states on tensor cores, the weights streaming
// from the L2 cache through shared memory ahead of their use.
//
// Every block reads every weight twice a step (W forward, W^T backward), 0.9 MB for the released
// model, and at 32 cells a step that is what bounds it: so the order of all products of a step is
// fixed, and each warp runs a ring of asynchronous copies that never waits for a barrier, because
// weights change between steps only. A lane reads back just the 16 bytes it copied itself, so the
// ring needs no synchronisation either.
//
// Fragment order: pieces of 16 x 16 weights, those of a row tile in a run; in a piece, two blocks
// of 8 rows; in a block, lane (g, t) holds row g, columns 4t .. 4t + 3. Its four columns serve as
// the k-indices t and t + 4 of two m16n8k8 instructions; the right operand is loaded in the same
// order.
//
// Numerics: 3xTF32. Products of the high parts and of the mixed parts have accumulators of their
// own, which shortens the chain of dependent instructions and adds the small sum once.
#pragma once

#include "gin_train/cuda_block.cuh"

namespace a2v {

// Offset of W[row, col] in fragment order; `cols` is a multiple of 16.
__device__ inline int fragment_offset(int row, int col, int cols) {
  const int piece = (row / 16) * (cols / 16) + col / 16;
  return piece * kPiece + (row % 16 / 8) * 128 + (row % 8 * 4 + col % 16 / 4) * 4 + col % 4;
}

// A product of the step: the copy that it reads, in row tiles of 16 by pieces of 16 columns.
struct Product {
  const float* weights;
  int row_tiles;
  int pieces;

  __device__ Product(const TrainBlock& block, int matrix, bool transposed) {
    const StreamedMatrix& m = block.plan.streamed[matrix];
    weights = block.work + block.plan.workspace.fragments + (transposed ? m.backward : m.forward);
    row_tiles = ((transposed ? m.cols : m.rows) + 15) / 16;
    pieces = ((transposed ? m.rows : m.cols) + 15) / 16;
  }
};

template <int kTiles, int kSlots>
class WeightStream {
 public:
  static constexpr int kColumnTiles = kTiles;

  __device__ explicit WeightStream(const TrainBlock& block)
      : block_(block),
        slots_(reinterpret_cast<float4*>(block.at(block.plan.shared.ring) +
                                         block.warp * kSlots * kPiece) +
               block.lane) {}

  // At the start of a step.
  __device__ void prime() {
    index_ = 0;
    chunk_ = 0;
    fill_ = 0;
    use_ = 0;
    done_ = false;
    open_product();
#pragma unroll 1
    for (int i = 0; i + 1 < kSlots; ++i) issue();
  }

  // Calls consume(mt, sums) for this warp's row tiles mt, where sums[n] is the fragment of
  // product x columns 8n .. 8n + 7 of `operand`, columns stored `stride` floats apart. Must be
  // called in the order of open_product().
  template <class Consume>
  __device__ void multiply(const Product& product, const float* operand, int stride, int tiles,
                           Consume consume) {
    const float* column = operand + block_.g * stride + 4 * block_.t;
#pragma unroll 1
    for (int mt = block_.warp; mt < product.row_tiles; mt += block_.warps) {
      float high[kTiles][kChains][4] = {};
      float mixed[kTiles][kChains][4] = {};
#pragma unroll 2
      for (int piece = 0; piece < product.pieces; ++piece) {
        multiply_piece(column + 16 * piece, stride, tiles, high, mixed);
      }
      float sums[kTiles][4];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[n][i] = mixed[n][0][i];
          if (kChains > 1) sums[n][i] += mixed[n][kChains - 1][i];
          sums[n][i] += high[n][0][i];
          if (kChains > 1) sums[n][i] += high[n][kChains - 1][i];
        }
      }
      consume(mt, sums);
    }
  }

 private:
  static constexpr int kChains = kTiles == 1 ? 2 : 1;

  __device__ void multiply_piece(const float* column, int stride, int tiles,
                                 float (&high)[kTiles][kChains][4],
                                 float (&mixed)[kTiles][kChains][4]) {
    float a_high[2][4];
    float a_low[2][4];
    next(a_high, a_low);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (n < tiles) {
        const float4 b = *reinterpret_cast<const float4*>(column + 8 * n * stride);
        const float values[2][2] = {{b.x, b.y}, {b.z, b.w}};
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          const SplitTf32 first = split_tf32(values[s][0]);
          const SplitTf32 second = split_tf32(values[s][1]);
          const float b_high[2] = {first.high, second.high};
          const float b_low[2] = {first.low, second.low};
          mma_m16n8k8_tf32(mixed[n][s % kChains], a_low[s], b_high);
          mma_m16n8k8_tf32(mixed[n][s % kChains], a_high[s], b_low);
          mma_m16n8k8_tf32(high[n][s % kChains], a_high[s], b_high);
        }
      }
    }
  }

  // The next piece of this warp's stream, split in two; refills the slot used before it.
  __device__ void next(float (&high)[2][4], float (&low)[2][4]) {
    cp_async_wait<kSlots - 2>();
    const float4* slot = slots_ + use_ * (kPiece / 4);
    const float4 upper = slot[0];
    const float4 lower = slot[kWarpSize];
    use_ = use_ + 1 == kSlots ? 0 : use_ + 1;
    const float values[2][4] = {{upper.x, lower.x, upper.y, lower.y},
                                {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const SplitTf32 split = split_tf32(values[s][i]);
        high[s][i] = split.high;
        low[s][i] = split.low;
      }
    }
    issue();
  }

  // Starts copying one more piece, or closes an empty group where the step has no more, so that the
  // count of groups under way stays the same.
  __device__ void issue() {
    if (!done_) {
      float4* slot = slots_ + fill_ * (kPiece / 4);
      cp_async_16(slot, source_);
      cp_async_16(slot + kWarpSize, source_ + kPiece / 2);
      fill_ = fill_ + 1 == kSlots ? 0 : fill_ + 1;
      source_ += kPiece;
      if (++piece_ == pieces_) close_row_tile();
    }
    cp_async_commit();
  }

  __device__ void close_row_tile() {
    piece_ = 0;
    row_tile_ += block_.warps;
    source_ += (block_.warps - 1) * pieces_ * kPiece;
    if (row_tile_ >= row_tiles_) {
      advance();
      open_product();
    }
  }

  // The order of a step's products: linears 1 .. n forward; heads, mixer, mixer backward, heads
  // backward; linears n .. 1 backward. Each is repeated for all chunks, the middle ones together.
  __device__ void advance() {
    const int forward = block_.plan.heads;
    const int middle = 2 * (block_.plan.num_streamed - forward);
    const bool in_middle = index_ >= forward && index_ < forward + middle;
    if (in_middle && index_ + 1 < forward + middle) {
      ++index_;
    } else if (chunk_ + 1 < block_.chunks()) {
      ++chunk_;
      if (in_middle) index_ = forward;
    } else {
      chunk_ = 0;
      ++index_;
    }
  }

  // Sets the source to this warp's first row tile of product index_ (or of a later one, where the
  // product has fewer row tiles than there are warps).
  __device__ void open_product() {
    const int total = 2 * block_.plan.num_streamed;
    for (; index_ < total; advance()) {
      const bool transposed = index_ >= block_.plan.num_streamed;
      const Product product(block_, transposed ? total - 1 - index_ : index_, transposed);
      row_tiles_ = product.row_tiles;
      if (block_.warp < row_tiles_) {
        pieces_ = product.pieces;
        row_tile_ = block_.warp;
        piece_ = 0;
        source_ = product.weights + (row_tile_ * pieces_) * kPiece + 4 * block_.lane;
        return;
      }
    }
    done_ = true;
  }

  const TrainBlock& block_;
  float4* slots_;
  const float* source_ = nullptr;
  int index_ = 0;
  int chunk_ = 0;
  int row_tile_ = 0;
  int row_tiles_ = 0;
  int piece_ = 0;
  int pieces_ = 0;
  int fill_ = 0;
  int use_ = 0;
  bool done_ = false;
};

}  // namespace a2v

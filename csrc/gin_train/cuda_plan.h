// SPDX-License-Identifier: Apache-2.0
// How gin_train is laid out on a device: which block trains which cells, where everything lies in
// shared and in global memory. Made once a call on the host, passed to the kernel by value.
//
// Blocks come in groups of `blocks`, one group a model. Within a step, block r of a group owns
// cells r*c .. r*c + c - 1 of the batch (c = cells_per_block; the first `active` blocks have any).
// It works on `chunk_cells` of them at a time: their nodes are the columns, at most 64, of the
// tensor cores' right operand. All offsets count floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox.h"
#include "gin_train/gin_train.h"

namespace a2v {

constexpr int kTrainThreads = 256;
constexpr int kMaxStreamed = kMaxGinLayers * kMaxMlpLayers + 2;
constexpr int kMaxSegments = 2 * kMaxGinLayers * kMaxMlpLayers + 2 * kMaxGinLayers + 16;
constexpr int kMaxTrainOpTypes = 64;
constexpr int kMaxTrainHidden = 256;
constexpr int kMaxTrainMixing = 512;
constexpr int kMaxColumns = 64;    // of one chunk
constexpr int kPiece = 256;        // floats of 16 x 16 weights
constexpr int kGradientTile = 32;  // a block computes 32 x 32 entries of a gradient at a time
constexpr int kTileStride = 36;    // of such a tile in shared memory
constexpr int kTileFloats = kGradientTile * kTileStride;

A2V_HOST_DEVICE constexpr int round_up(int n, int multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Distance of two columns of a tensor-core operand in shared memory: 16 modulo 32, so that the
// 16-byte loads of eight lanes (two columns, four neighbours) touch every bank once.
A2V_HOST_DEVICE constexpr int operand_stride(int width) {
  return round_up(width, 16) % 32 == 16 ? round_up(width, 16) : round_up(width, 16) + 16;
}

// A weight matrix that runs on the tensor cores: all but the first linear layer's. Both
// orientations are kept as copies in fragment order (see weight_stream.cuh), zero-padded to
// multiples of 16.
struct StreamedMatrix {
  int weight;                // offset in the parameters
  int rows;                  // out
  int cols;                  // in
  int forward;               // copy of W in the workspace
  int backward;              // copy of W^T
  int first_tile;            // number of its first gradient tile
  std::int64_t input;        // [rows of the batch, round_up(cols, 32)], for the weight gradient
  std::int64_t output_grad;  // [rows of the batch, round_up(rows, 32)]

  A2V_HOST_DEVICE int tile_columns() const { return (cols + kGradientTile - 1) / kGradientTile; }
  A2V_HOST_DEVICE int tiles() const {
    return (rows + kGradientTile - 1) / kGradientTile * tile_columns();
  }
};

// All other parameters ("small") are packed: entry first .. first + count - 1 of the packed array
// are parameters offset .. offset + count - 1. Segments start at multiples of four.
struct SmallSegment {
  int first;
  int count;
  int offset;
};

struct SmallLayout {
  int eps;        // [L]
  int first;      // [H, F], weights of linear 0
  int linear;     // [L*K, 3, H]: bias, gamma, beta
  int head_bias;  // [D] or [2D]
  int bilinear;   // [D, D]
  int node_bias;  // [N, C]
  int edge_bias;  // [N, N]
  int op_weight;  // [C, D]
  int op_bias;    // [C]
  int mixer_in;   // [M]
  int mixer_out;  // [N*D]
  int gates;      // [2, F], then [2, H] a layer, each rounded up to four
  int size;
};

struct SharedLayout {
  int ring;         // [warps, slots, kPiece]; after the backward pass: warps' tiles, then the stash
  int small;        // [small.size]
  int small_grad;   // [small.size]
  int norm;         // [L*K, 2, H]: mean, 1/std
  int totals;       // [2, H]
  int scratch;      // partial sums of a block
  int eps_parts;    // [L, H/16]; layer 0 uses input_parts
  int input_parts;  // [F]
  int moments;      // double [2, N*D]
  int losses;       // double [3]
  int masks;        // uint16 [c, N, 2]: successors, predecessors
  int labels;       // uint8 [c, N]
  int input;        // [64, F]
  int left;         // [64, operand_stride(H)]
  int right;        // the same
  int heads;        // [64, operand_stride(2D)]
  int scaled;       // [64, D]: sigma * noise
  int keep;         // [64, D]: dropout factor
  int z;            // [chunk cells, operand_stride(N*D)]
  int mixed;
  int z_grad;
  int logits;  // [64, C]
  int edges;   // [chunk cells, N, N]
  int source;  // [64, D]
  int source_grad;
  int hidden;  // [chunk cells, operand_stride(M)]
  int hidden_grad;
  int saved;  // the saved states, where they fit (see saved_in_shared)
  int size;   // floats
};

struct WorkspaceLayout {  // of one group
  std::int64_t barriers;  // two words, 128 bytes apart: all blocks, active blocks
  std::int64_t fragments;
  std::int64_t small;
  std::int64_t small_partials;  // [blocks, small.size]
  std::int64_t stats;           // [2, blocks, 2, H]
  std::int64_t square_sums;     // [items]
  std::int64_t losses;          // double [blocks, 4]
  std::int64_t moments;         // double [blocks, 2, N*D]
  std::int64_t activations;
  std::int64_t saved;  // [blocks, saved floats], where not in shared memory
  std::int64_t stash;  // [blocks, slots, kTileFloats], where not in shared memory
  std::int64_t size;
};

// Where the time of a step goes: cycles of a block's first thread, added up over the steps.
enum class TrainPhase {
  kForward,
  kDecoder,
  kBackward,
  kWaitRows,
  kGradients,
  kWaitNorm,
  kUpdate,
  kWaitUpdate,
  kCount
};

struct GinTrainPlan {
  int groups;
  int blocks;  // of a group
  int threads;
  int ring_slots;
  int column_tiles;     // the kernel's: 1, 2 or 8
  int cells_per_block;  // c
  int chunk_cells;
  int chunks;
  int chunk_tiles;  // column tiles (of 8) of a full chunk
  int op_bits;
  int edge_bits;
  int words;
  int flat;       // N*D
  int head_rows;  // D or 2D
  int num_streamed;
  int heads;           // index of the heads' matrix: linears 1 .. L*K-1 come before it
  int num_parameters;  // P
  int num_segments;
  int num_tiles;
  int items;        // gradient tiles, then runs of `threads` small parameters
  int stash_slots;  // items of a block, at most
  bool stash_in_shared;
  bool saved_in_shared;
  double beta1_power;  // beta^first_step
  double beta2_power;
  StreamedMatrix streamed[kMaxStreamed];
  SmallSegment segments[kMaxSegments];
  SmallLayout small;
  SharedLayout shared;
  WorkspaceLayout workspace;

  A2V_HOST_DEVICE int mixer_in() const { return heads + 1; }
  A2V_HOST_DEVICE int mixer_out() const { return heads + 2; }
  std::size_t workspace_bytes() const {
    return sizeof(float) * static_cast<std::size_t>(workspace.size) *
           static_cast<std::size_t>(groups);
  }
  std::size_t shared_bytes() const { return sizeof(float) * static_cast<std::size_t>(shared.size); }
};

// What the device offers.
struct TrainDevice {
  int blocks;                // that can be resident at once, one a multiprocessor
  std::size_t shared_bytes;  // of a block
  int threads = kTrainThreads;
};

// Throws std::invalid_argument, one line, for what the kernel does not do.
GinTrainPlan make_gin_train_plan(const GinTrainParams& params, const TrainDevice& device);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// gin_encode on CUDA, second launch: cells to embeddings on the tensor cores. Function:
// gin_encode.h.
//
// A block of 8 warps takes a tile of whole cells (18 of 7 nodes: 126 of 128 rows at H = 128), one
// after another, and keeps its node states in shared memory from the packed code to the embedding:
//
//   read_cells      bits to (predecessors, operation) of each node
//   first_linear    operations are one-hot, so the first linear is a sum of a few columns, in
//   float32 product         the other linears: Y = relu(X W^T + b); each warp owns 32 x 64 of Y
//   aggregate       X <- scale X + A (g1 * X) + A^T (g2 * X): a lane holds two channels of all
//   nodes
//                   of a cell, so it needs no barrier and writes in place
//   pool, head      the read-out is linear, so it comes before the head: one row a cell instead of
//   N
//
// Weights come from the second-level cache in chunks of 32 rows of k, one chunk ahead of the
// arithmetic (cp.async), in an endless cycle over the products: the first chunk of the next product
// or tile loads while this one ends. Two blocks share a multiprocessor (H <= 128), so that one
// multiplies while the other aggregates.
//
// Numerics: operands of the products as in gin_encode_fragment.cuh, sums and everything else
// float32. fp32: two fp16 a number (22 bits); tf32: one fp16 (the 11 bits of tf32); bf16: one bf16
// (8 bits). Since fp16 ends at 65504, states are kept divided by a power of two that the tile's
// largest state decides (state_scale; 1 for ordinary models). Sums have a fixed order: same inputs,
// same bits.
//
// Cost at H = 128, L = 4, K = 2, N = 7: 1.6 MFLOP a cell on the tensor cores, three times that for
// fp32; weights are read once a tile, 448 KB.

#include "common/device.cuh"
#include "common/launch.cuh"
#include "gin_encode/gin_encode_cuda.h"
#include "gin_encode/gin_encode_fragment.cuh"
#include "gin_encode/gin_encode_tile.cuh"

namespace a2v {
namespace gin_encode_cuda {
namespace {

constexpr int kCorrupt = 255;  // label of a node whose code is no cell of the layout

struct Arguments {
  GinEncodeConfig config;
  GinEncodePlan plan;
  GinEncodeOutput output;
  std::int64_t num_cells;
  const std::int64_t* codes;
  const float* workspace;
  float* result;
};

template <int kWidth, GinEncodePrecision kPrecision>
class Encoder {
  using T = Tile<kWidth, kPrecision>;
  using Format = typename T::Format;
  using Sums = float[2][8][4];  // of a warp: tiles down, tiles across, elements of a lane

 public:
  __device__ Encoder(const Arguments& arguments, std::uint32_t* shared)
      : args_(arguments),
        states_(shared),
        stages_(shared + T::kPlanes * T::kPlane),
        nodes_(stages_ + 2 * T::kChunk) {}

  // Tiles blockIdx.x, blockIdx.x + gridDim.x, ...
  __device__ void run() {
    start_weights(0);
    for (tile_ = blockIdx.x; first_cell() < args_.num_cells; tile_ += gridDim.x) encode_tile();
    cp_async_wait<0>();
  }

 private:
  __device__ void encode_tile() {
    __syncthreads();  // the read-out of the tile before
    read_cells();
    if (thread() == 0) largest_state()[1] = 0;
    __syncthreads();
    first_linear();
    const int linears = args_.plan.num_products + 1;
    for (int linear = 1; linear < linears; ++linear) {
      if (linear % args_.config.num_mlp_layers == 0) {
        __syncthreads();
        if (num_nodes() <= 8) {
          aggregate<8>(linear / args_.config.num_mlp_layers);
        } else {
          aggregate<kMaxNodes>(linear / args_.config.num_mlp_layers);
        }
      }
      product(linear);
    }
    __syncthreads();
    if (args_.output == GinEncodeOutput::kNodes) {
      write_nodes();
      return;
    }
    pool();
    if (args_.output == GinEncodeOutput::kReadout) {
      __syncthreads();
      write_readouts();
    }
  }

  // Functions of thread_index() instead of members: the products need all the registers.
  __device__ static int thread() { return thread_index(); }
  __device__ static int warp() { return thread() / kWarpSize; }
  __device__ static int lane() { return thread() % kWarpSize; }

  __device__ int num_nodes() const { return args_.config.num_nodes; }

  // ---- Cells ----

  // Of the tile, and how many there are.
  __device__ std::int64_t first_cell() const {
    return std::int64_t{tile_} * (T::kRows / num_nodes());
  }
  __device__ int num_cells() const {
    const std::int64_t left = args_.num_cells - first_cell();
    const int most = T::kRows / num_nodes();
    return left < most ? static_cast<int>(left) : most;
  }

  // nodes_[cell * N + v] = predecessors | label << 16.
  __device__ void read_cells() {
    const CellLayout layout = args_.config.layout();
    const int words = layout.words();
    const int width = layout.op_bits();
    const int used = layout.num_bits() % 64;
    for (int i = thread(); i < num_cells() * num_nodes(); i += kThreads) {
      const int v = i % num_nodes();
      const auto* code = reinterpret_cast<const std::uint64_t*>(args_.codes) +
                         (first_cell() + i / num_nodes()) * words;
      std::uint32_t preds = v == 0 ? 0 : get_bits(code, v * (v - 1) / 2, v);
      std::uint32_t label = get_bits(code, layout.edge_bits() + v * width, width);
      const bool stray = used != 0 && (code[words - 1] >> used) != 0;
      if (stray || label > static_cast<std::uint32_t>(layout.num_op_types)) {
        preds = 0;
        label = kCorrupt;
      }
      nodes_[i] = preds | label << 16;
    }
  }

  __device__ std::uint32_t preds_of(int cell, int v) const {
    return nodes_[cell * num_nodes() + v] & 0xffffU;
  }
  __device__ int label_of(int cell, int v) const {
    return static_cast<int>(nodes_[cell * num_nodes() + v] >> 16);
  }

  // Calls visit(cell, pair) for each cell and each two channels once; a warp visits one cell at a
  // time, so what depends on the cell alone does not diverge.
  template <class Visit>
  __device__ void for_each_cell(Visit visit) {
    for (int unit = warp(); unit < num_cells() * T::kGroups; unit += kWarps) {
      visit(unit / T::kGroups, unit % T::kGroups * kWarpSize + lane());
    }
  }

  // ---- States: two channels of a row ----

  __device__ static Pair joined(std::uint32_t high, std::uint32_t low) {
    const Pair large = Format::unpack(high);
    if constexpr (!Format::kSplit) return large;
    const Pair small = Format::unpack(low);
    return {fmaf(small.x, 1.0F / kLowScale, large.x), fmaf(small.y, 1.0F / kLowScale, large.y)};
  }

  __device__ Pair load_state(int row, int pair) const {
    const int word = state_word<T::kSteps>(row, pair);
    return joined(states_[word], Format::kSplit ? states_[T::kPlane + word] : 0);
  }

  __device__ void store_state(int row, int pair, Pair value) {
    const int word = state_word<T::kSteps>(row, pair);
    const std::uint32_t high = Format::pack(value);
    states_[word] = high;
    if constexpr (Format::kSplit) {
      states_[T::kPlane + word] = Format::pack_rest(value, high, kLowScale);
    }
  }

  // Of rows even_row and even_row + 1.
  __device__ void load_two_states(int even_row, int pair, Pair& even, Pair& odd) const {
    const std::uint32_t* address = states_ + state_word<T::kSteps>(even_row, pair);
    const TwoWords high = *reinterpret_cast<const TwoWords*>(address);
    TwoWords low = {};
    if constexpr (Format::kSplit) low = *reinterpret_cast<const TwoWords*>(address + T::kPlane);
    even = joined(high.x, low.x);
    odd = joined(high.y, low.y);
  }

  __device__ void store_two_states(int even_row, int pair, Pair even, Pair odd) {
    std::uint32_t* address = states_ + state_word<T::kSteps>(even_row, pair);
    const TwoWords high = {Format::pack(even), Format::pack(odd)};
    *reinterpret_cast<TwoWords*>(address) = high;
    if constexpr (Format::kSplit) {
      *reinterpret_cast<TwoWords*>(address + T::kPlane) = {
          Format::pack_rest(even, high.x, kLowScale), Format::pack_rest(odd, high.y, kLowScale)};
    }
  }

  // Largest state of the tile, as the bits of a float; products take turns.
  __device__ static std::uint32_t* largest_state() {
    A2V_SHARED(std::uint32_t[2], largest);
    return largest;
  }

  __device__ void set_scale(float bound) { scale_ = Format::kBFloat16 ? 1.0F : state_scale(bound); }

  // ---- First linear ----

  __device__ void first_linear() {
    const int rows = args_.config.num_op_types + 1;
    const float* own = args_.workspace + args_.plan.first;
    const float* successors = own + rows * kWidth;
    const float* predecessors = successors + rows * kWidth;
    set_scale(args_.workspace[args_.plan.bound] * args_.workspace[args_.plan.gains]);
    for_each_cell([&](int cell, int pair) {
      const Pair bias = load_pair(args_.workspace + args_.plan.biases + 2 * pair);
      bool corrupt = false;
      for (int v = 0; v < num_nodes(); ++v) corrupt |= label_of(cell, v) == kCorrupt;
      for (int v = 0; v < num_nodes(); ++v) {
        Pair sum = bias;
        const auto add_column = [&](const float* columns, int u) {
          if (!corrupt) add(sum, load_pair(columns + label_of(cell, u) * kWidth + 2 * pair));
        };
        add_column(own, v);
        const std::uint32_t preds = preds_of(cell, v);
        for (int u = 0; u < num_nodes(); ++u) {
          if (u < v && (preds >> u & 1U) != 0) add_column(predecessors, u);
          if (u > v && (preds_of(cell, u) >> v & 1U) != 0) add_column(successors, u);
        }
        sum = {relu(sum.x) * scale_, relu(sum.y) * scale_};
        if (corrupt) sum = {NAN, NAN};
        store_state(cell * num_nodes() + v, pair, sum);
      }
    });
    // Rows of no cell: finite, since the largest state of the tile is taken over all rows.
    const int used = num_cells() * num_nodes();
    for (int i = thread(); i < (T::kRows - used) * T::kPairs; i += kThreads) {
      store_state(used + i / T::kPairs, i % T::kPairs, {0.0F, 0.0F});
    }
  }

  // ---- Products ----

  // Starts copying a chunk of the weights of all products, [num_products * kChunks], into the stage
  // of its parity; the first chunk of all comes after the last.
  __device__ void start_weights(int chunk) {
    const int chunks = args_.plan.num_products * T::kChunks;
    if (chunks == 0) return;
    const float* source = args_.workspace + args_.plan.fragments +
                          std::int64_t{chunk == chunks ? 0 : chunk} * T::kChunk;
    std::uint32_t* target = stages_ + chunk % 2 * T::kChunk;
#pragma unroll
    for (int word = 0; word < T::kChunk; word += kThreads * 4) {
      cp_async_16(target + word + thread() * 4, source + word + thread() * 4);
    }
    cp_async_commit();
  }

  __device__ void product(int linear) {
    Sums sums = {};
    // This lane's words of the first fragments, as offsets; a k step later they are one fragment
    // further, and four lanes to the side (state_word).
    int state = (warp_row() * 2 * T::kSteps * kWarpSize + lane()) * 4;
    int weight = (warp_column() * T::kTilesOfWarp * kWarpSize + lane()) * 4;
#pragma unroll 1
    for (int chunk = (linear - 1) * T::kChunks; chunk < linear * T::kChunks; ++chunk) {
      cp_async_wait<0>();
      __syncthreads();  // weights and states have been written, the other stage has been read
      start_weights(chunk + 1);
#pragma unroll 1
      for (int odd = 0; odd < 2; ++odd) {
        multiply(states_ + state, stages_ + weight, sums);
        state = (state ^ 16) + kWarpSize * 4;
        weight ^= T::kChunk / 2;
      }
      weight ^= T::kChunk;
    }
    finish(linear, sums);
  }

  // sums += states times weights over one k step, for this warp's 2 x 8 tiles of 16 x 8, from this
  // lane's words of the first fragments. Tiles go two by two, so that four independent products
  // stand between two that add to one sum.
  __device__ void multiply(const std::uint32_t* states, const std::uint32_t* weights,
                           Sums& sums) const {
    Words high[2];
    Words low[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t* fragment = states + i * (T::kSteps * kWarpSize * 4);
      high[i] = *reinterpret_cast<const Words*>(fragment);
      if constexpr (Format::kSplit) {
        low[i] = *reinterpret_cast<const Words*>(fragment + T::kPlane);
      }
    }
    const auto* mine = reinterpret_cast<const Words*>(weights);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      if constexpr (Format::kSplit) {
        const Words left = mine[j * kWarpSize];
        const Words right = mine[(j + 1) * kWarpSize];
        add_products(low, lowered(left.at[0]), lowered(left.at[1]), lowered(right.at[0]),
                     lowered(right.at[1]), j, sums);
        add_products(high, left.at[2], left.at[3], right.at[2], right.at[3], j, sums);
        add_products(high, left.at[0], left.at[1], right.at[0], right.at[1], j, sums);
      } else {
        const Words both = mine[j / 2 * kWarpSize];
        add_products(high, both.at[0], both.at[1], both.at[2], both.at[3], j, sums);
      }
    }
  }

  // Two tiles of weights, `left` and `right` of it, against both tiles of states.
  __device__ static void add_products(const Words (&states)[2], std::uint32_t left0,
                                      std::uint32_t left1, std::uint32_t right0,
                                      std::uint32_t right1, int j, Sums& sums) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Format::multiply(sums[i][j], states[i], left0, left1);
      Format::multiply(sums[i][j + 1], states[i], right0, right1);
    }
  }

  // The epilogue of a product: scale back, bias, relu, new scale, and the states are replaced.
  __device__ void finish(int linear, Sums& sums) {
    const float factor = args_.workspace[args_.plan.unscales + linear - 1] / scale_;
    const float* bias =
        args_.workspace + args_.plan.biases + linear * kWidth + warp_column() * 64 + lane() % 4 * 2;
    float largest = 0.0F;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const Pair b = load_pair(bias + j * 8);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[i][j][e] = relu(fmaf(sums[i][j][e], factor, e % 2 == 0 ? b.x : b.y));
          largest = fmaxf(largest, sums[i][j][e]);
        }
      }
    }
    // Not negative, so that floats and their bits have one order; fmaxf has left NaN out.
    const std::uint32_t bits = __reduce_max_sync(kWholeWarp, __float_as_uint(largest));
    if (lane() == 0) atomicMax(largest_state() + linear % 2, bits);
    __syncthreads();  // all warps have read the old states
    set_scale(__uint_as_float(largest_state()[linear % 2]) *
              args_.workspace[args_.plan.gains + linear]);
    if (thread() == 0) largest_state()[(linear + 1) % 2] = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        store_fragment(warp_row() * 2 + i, step, sums[i][2 * step], sums[i][2 * step + 1]);
      }
    }
  }

  __device__ int warp_row() const { return warp() / T::kWarpsAcross; }
  __device__ int warp_column() const { return warp() % T::kWarpsAcross; }

  // Two neighbouring 16 x 8 tiles of results as one 16 x 16 fragment of states: the lanes of both
  // hold the same elements. `step` counts within this warp's 64 columns.
  __device__ void store_fragment(int row_tile, int step, const float (&left)[4],
                                 const float (&right)[4]) {
    const int fragment = row_tile * T::kSteps + warp_column() * 4 + step;
    std::uint32_t* target = states_ + (fragment * kWarpSize + (lane() ^ (step % 2 * 4))) * 4;
    const Pair pairs[4] = {{left[0] * scale_, left[1] * scale_},
                           {left[2] * scale_, left[3] * scale_},
                           {right[0] * scale_, right[1] * scale_},
                           {right[2] * scale_, right[3] * scale_}};
    Words high;
    Words low;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      high.at[part] = Format::pack(pairs[part]);
      if constexpr (Format::kSplit) {
        low.at[part] = Format::pack_rest(pairs[part], high.at[part], kLowScale);
      }
    }
    *reinterpret_cast<Words*>(target) = high;
    if constexpr (Format::kSplit) *reinterpret_cast<Words*>(target + T::kPlane) = low;
  }

  // ---- Aggregation, and the read-out that sees the same states ----

  // Nodes of a cell as slots, so that slots 2i and 2i + 1 are neighbours in shared memory: node v
  // is slot v + skip, where `skip` is 1 for a cell that starts in an odd row. kSlots >= N + skip: a
  // cell of an even number of nodes starts in an even row.
  template <int kSlots>
  __device__ void aggregate(int layer) {
    const float scale = args_.workspace[args_.plan.scales + layer];
    const float* gates = args_.workspace + args_.plan.gates + layer * 2 * kWidth;
    for_each_cell([&](int cell, int pair) {
      if (args_.output == GinEncodeOutput::kHidden) {
        write_hidden(layer - 1, cell, pair, pooled(cell, pair));
      }
      const Pair successor_gate = load_pair(gates + 2 * pair);
      const Pair predecessor_gate = load_pair(gates + kWidth + 2 * pair);
      const int first_row = cell * num_nodes();
      const int skip = first_row % 2;
      const int end = num_nodes() + skip;
      Pair x[kSlots];
      Pair sum[kSlots];
#pragma unroll
      for (int slot = 0; slot < kSlots; slot += 2) {
        x[slot] = x[slot + 1] = {0.0F, 0.0F};
        if (slot >= skip && slot + 1 < end) {
          load_two_states(first_row - skip + slot, pair, x[slot], x[slot + 1]);
        } else if (slot >= skip && slot < end) {
          x[slot] = load_state(first_row - skip + slot, pair);
        } else if (slot + 1 < end) {
          x[slot + 1] = load_state(first_row - skip + slot + 1, pair);
        }
        sum[slot] = {scale * x[slot].x, scale * x[slot].y};
        sum[slot + 1] = {scale * x[slot + 1].x, scale * x[slot + 1].y};
      }
#pragma unroll
      for (int v = 1; v < kSlots; ++v) {
        if (v >= end) break;
        if (v <= skip) continue;
        const std::uint32_t preds = preds_of(cell, v - skip) << skip;
#pragma unroll
        for (int u = 0; u < v; ++u) {
          if ((preds >> u & 1U) != 0) {
            add_scaled(sum[u], successor_gate, x[v]);
            add_scaled(sum[v], predecessor_gate, x[u]);
          }
        }
      }
#pragma unroll
      for (int slot = 0; slot < kSlots; slot += 2) {
        if (slot >= skip && slot + 1 < end) {
          store_two_states(first_row - skip + slot, pair, sum[slot], sum[slot + 1]);
        } else if (slot >= skip && slot < end) {
          store_state(first_row - skip + slot, pair, sum[slot]);
        } else if (slot + 1 < end) {
          store_state(first_row - skip + slot + 1, pair, sum[slot + 1]);
        }
      }
    });
  }

  // Two channels of the read-out of the present states.
  __device__ Pair pooled(int cell, int pair) const {
    Pair total = {0.0F, 0.0F};
    const bool all = !args_.config.sum_readout;
    for (int v = 0; v < num_nodes(); ++v) {
      if (all || label_of(cell, v) != 0) add(total, load_state(cell * num_nodes() + v, pair));
    }
    const float factor = (all ? 1.0F / static_cast<float>(num_nodes()) : 1.0F) / scale_;
    return {total.x * factor, total.y * factor};
  }

  __device__ void write_hidden(int layer, int cell, int pair, Pair value) const {
    const int hidden = args_.config.hidden_dim;
    float* row = args_.result + ((first_cell() + cell) * args_.config.num_layers + layer) * hidden;
    if (2 * pair < hidden) row[2 * pair] = value.x;
    if (2 * pair + 1 < hidden) row[2 * pair + 1] = value.y;
  }

  // Read-outs of the last layer: to the result, or over the states of the cell's first two nodes,
  // which only this lane reads.
  __device__ void pool() {
    for_each_cell([&](int cell, int pair) {
      const Pair total = pooled(cell, pair);
      if (args_.output == GinEncodeOutput::kHidden) {
        write_hidden(args_.config.num_layers - 1, cell, pair, total);
      } else {
        states_[state_word<T::kSteps>(cell * num_nodes(), pair)] = __float_as_uint(total.x);
        states_[state_word<T::kSteps>(cell * num_nodes() + 1, pair)] = __float_as_uint(total.y);
      }
    });
  }

  // ---- Head ----

  __device__ void write_readouts() const {
    const int latent = args_.config.latent_dim;
    const float* head = args_.workspace + args_.plan.head;
    for (int i = thread(); i < num_cells() * latent; i += kThreads) {
      const int cell = i / latent;
      const int d = i % latent;
      float sum = 0.0F;
#pragma unroll 8
      for (int pair = 0; pair < T::kPairs; ++pair) {
        const int x = state_word<T::kSteps>(cell * num_nodes(), pair);
        const int y = state_word<T::kSteps>(cell * num_nodes() + 1, pair);
        sum = fmaf(__uint_as_float(states_[x]), head[2 * pair * latent + d], sum);
        sum = fmaf(__uint_as_float(states_[y]), head[(2 * pair + 1) * latent + d], sum);
      }
      // A sum adds the head's bias once a node, a mean once.
      int times = args_.config.sum_readout ? 0 : 1;
      for (int v = 0; args_.config.sum_readout && v < num_nodes(); ++v) {
        times += label_of(cell, v) != 0 ? 1 : 0;
      }
      const float bias = args_.workspace[args_.plan.head_bias + d];
      args_.result[first_cell() * latent + i] = fmaf(static_cast<float>(times), bias, sum);
    }
  }

  __device__ void write_nodes() const {
    const int latent = args_.config.latent_dim;
    const float* head = args_.workspace + args_.plan.head;
    for (int i = thread(); i < num_cells() * num_nodes() * latent; i += kThreads) {
      const int row = i / latent;
      const int d = i % latent;
      float sum = 0.0F;
#pragma unroll 4
      for (int pair = 0; pair < T::kPairs; ++pair) {
        const Pair x = load_state(row, pair);
        sum = fmaf(x.x, head[2 * pair * latent + d], sum);
        sum = fmaf(x.y, head[(2 * pair + 1) * latent + d], sum);
      }
      args_.result[first_cell() * num_nodes() * latent + i] =
          sum / scale_ + args_.workspace[args_.plan.head_bias + d];
    }
  }

  const Arguments& args_;
  std::uint32_t* states_;  // [kPlanes][kRows * kPairs], see state_word
  std::uint32_t* stages_;  // [2][kChunk] of weights
  std::uint32_t* nodes_;   // [kRows]

  unsigned tile_ = 0;
  float scale_ = 1.0F;  // the states are scale_ times the model's; a power of two
};

template <int kWidth, GinEncodePrecision kPrecision>
__global__ __launch_bounds__(kThreads, Tile<kWidth, kPrecision>::kBlocks) void gin_encode_kernel(
    Arguments arguments) {
  A2V_DYN_SMEM(std::uint32_t, shared);
  Encoder<kWidth, kPrecision>(arguments, shared).run();
}

template <int kWidth, GinEncodePrecision kPrecision>
void launch_encoder(const Arguments& arguments, CudaStream stream) {
  using T = Tile<kWidth, kPrecision>;
  const std::int64_t cells_a_tile = T::kRows / arguments.config.num_nodes;
  const std::int64_t tiles = (arguments.num_cells + cells_a_tile - 1) / cells_a_tile;
  const std::int64_t resident = T::kBlocks * multiprocessors();
  launch(gin_encode_kernel<kWidth, kPrecision>,
         dim3(static_cast<unsigned>(tiles < resident ? tiles : resident)), dim3(kThreads),
         T::kSharedWords * sizeof(std::uint32_t), stream, arguments);
}

template <GinEncodePrecision kPrecision>
void launch_width(const Arguments& arguments, CudaStream stream) {
  switch (arguments.plan.width) {
    case 64:
      return launch_encoder<64, kPrecision>(arguments, stream);
    case 128:
      return launch_encoder<128, kPrecision>(arguments, stream);
    default:
      return launch_encoder<256, kPrecision>(arguments, stream);
  }
}

}  // namespace
}  // namespace gin_encode_cuda

void launch_gin_encode(const GinEncodeParams& params, void* workspace, CudaStream stream) {
  using namespace gin_encode_cuda;
  const GinEncodePlan plan(params.config, params.precision);
  launch_gin_encode_prepare(params, plan, workspace, stream);
  const Arguments arguments{.config = params.config,
                            .plan = plan,
                            .output = params.output,
                            .num_cells = params.num_cells,
                            .codes = params.codes,
                            .workspace = static_cast<const float*>(workspace),
                            .result = params.result};
  switch (params.precision) {
    case GinEncodePrecision::kFloat32:
      return launch_width<GinEncodePrecision::kFloat32>(arguments, stream);
    case GinEncodePrecision::kTensorFloat32:
      return launch_width<GinEncodePrecision::kTensorFloat32>(arguments, stream);
    case GinEncodePrecision::kBFloat16:
      return launch_width<GinEncodePrecision::kBFloat16>(arguments, stream);
  }
}

}  // namespace a2v

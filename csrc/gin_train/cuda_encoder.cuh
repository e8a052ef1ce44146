// SPDX-License-Identifier: Apache-2.0
// The GIN layers of a step, forward and backward, over the block's own cells. Equations:
// models/gin_vae.py. Linear j = l*K + k is followed by batch norm j and ReLU:
//
//   V_j = Y_{j-1}, or for the first linear of a layer (1 + eps_l) Y + A (g1 * Y) + A^T (g2 * Y)
//   U_j = W_j V_j + b_j;  X_j = (U_j - mean_j) / std_j;  Y_j = ReLU(gamma_j X_j + beta_j)
//
// U_j is saved as fragments; X_j and Y_j are computed from it again where needed. V_j and dU_j also
// go to global memory, for the weight gradients (update.cuh).
//
// In batch mode the mean and the sum of squared deviations of every block are merged after a
// barrier of the active blocks (Chan et al. 1979, shifted by block 0's mean), by each block for
// itself and in the same order, so all hold the same bits.
#pragma once

#include "gin_train/weight_stream.cuh"

namespace a2v {

constexpr float kBatchNormTiny = 1e-5F;
constexpr double kBatchNormMomentum = 0.1;

// Features f and f + 8 of a lane in row tile mt.
struct LaneFeatures {
  int low;
  int high;
  __device__ LaneFeatures(const TrainBlock& block, int mt)
      : low(16 * mt + block.g), high(low + 8) {}
  __device__ int of(int i) const { return i < 2 ? low : high; }
};

// Batch norm of the lane's two features: X = (U - mean) scale, Y = max(0, gamma X + beta).
struct LaneNorm {
  float mean[2], scale[2], gamma[2], beta[2];

  __device__ LaneNorm(const TrainBlock& block, int j, const LaneFeatures& f) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int feature = i == 0 ? f.low : f.high;
      mean[i] = block.mean(j)[feature];
      scale[i] = block.inverse_std(j)[feature];
      gamma[i] = block.gamma(j)[feature];
      beta[i] = block.beta(j)[feature];
    }
  }
  __device__ float normalized(int i, float u) const { return (u - mean[i / 2]) * scale[i / 2]; }
  __device__ float before_relu(int i, float x) const { return gamma[i / 2] * x + beta[i / 2]; }
  __device__ float output(int i, float u) const {
    return fmaxf(before_relu(i, normalized(i, u)), 0.0F);
  }
};

struct Fragment {
  float value[4];
  __device__ explicit Fragment(const float4& v) : value{v.x, v.y, v.z, v.w} {}
  __device__ float4 pack() const { return make_float4(value[0], value[1], value[2], value[3]); }
};

// ---- Input
// -----------------------------------------------------------------------------------------

// Labels of a cell that is none of the layout, or of a row that `codes` does not have. Its node
// loss is NaN, so that the step says so.
constexpr std::uint8_t kCorruptLabel = 255;

// Neighbour masks and labels of one cell.
__device__ inline void unpack_training_cell(const TrainBlock& block, const std::uint64_t* words,
                                            std::uint16_t* masks, std::uint8_t* labels) {
  const int nodes = block.config.num_nodes;
  const bool valid = words != nullptr && is_well_formed(block.params.layout, words);
  for (int v = 0; v < nodes; ++v) masks[2 * v] = 0;
  int bit = 0;
  for (int v = 0; v < nodes; bit += v, ++v) {
    const std::uint32_t sources = v == 0 || !valid ? 0 : get_bits(words, bit, v);
    masks[2 * v + 1] = static_cast<std::uint16_t>(sources);
    for (int u = 0; u < v; ++u) {
      const auto edge = static_cast<std::uint16_t>((sources >> u & 1U) << v);
      masks[2 * u] = static_cast<std::uint16_t>(masks[2 * u] | edge);
    }
  }
  for (int v = 0; v < nodes; ++v) {
    const int first = block.plan.edge_bits + v * block.plan.op_bits;
    labels[v] = valid ? static_cast<std::uint8_t>(get_bits(words, first, block.plan.op_bits))
                      : kCorruptLabel;
  }
}

// Reads the cells of the block for the current step.
__device__ inline void load_cells(const TrainBlock& block) {
  const int nodes = block.config.num_nodes;
  const std::int64_t first = block.model * block.params.cells_in_call +
                             block.step * block.params.batch_size + block.first_cell();
  const auto* codes = reinterpret_cast<const std::uint64_t*>(block.params.codes);
  for (int c = block.thread; c < block.cells; c += block.threads) {
    const std::int64_t row = block.params.order[first + c];
    const bool exists = row >= 0 && row < block.params.num_cells;
    unpack_training_cell(block, exists ? codes + row * block.plan.words : nullptr,
                         block.masks() + 2 * c * nodes, block.labels() + c * nodes);
  }
}

// Sums of `value(neighbour)` over the successors and over the predecessors of a node, in order.
struct Neighbours {
  float successors;
  float predecessors;
};

template <class Value>
__device__ Neighbours sum_neighbours(unsigned successors, unsigned predecessors, Value value) {
  Neighbours sums{0.0F, 0.0F};
  for (unsigned m = predecessors; m != 0; m &= m - 1)
    sums.predecessors += value(__ffs(static_cast<int>(m)) - 1);
  for (unsigned m = successors; m != 0; m &= m - 1)
    sums.successors += value(__ffs(static_cast<int>(m)) - 1);
  return sums;
}

// A column of a chunk: its node within the cell, the cell's first column, its neighbours.
struct ColumnNode {
  int base;
  unsigned successors;
  unsigned predecessors;

  __device__ ColumnNode(const TrainBlock& block, const Chunk& chunk, int column) {
    const int nodes = block.config.num_nodes;
    base = column / nodes * nodes;
    const std::uint16_t* mask = block.masks() + 2 * (chunk.first * nodes + column);
    successors = mask[0];
    predecessors = mask[1];
  }
};

// Aggregated one-hot input of the first layer, V_0[column, f].
__device__ inline void aggregate_input(const TrainBlock& block, const Chunk& chunk) {
  const int types = block.config.num_op_types;
  float* input = block.at(block.plan.shared.input);
  const float self = 1.0F + *block.small(block.plan.small.eps);
  const float* gates = block.small(block.gates(0));
  const std::uint8_t* labels = block.labels() + chunk.first * block.config.num_nodes;
  for (int i = block.thread; i < chunk.columns * types; i += block.threads) {
    const int f = i % types;
    const ColumnNode node(block, chunk, i / types);
    const auto one_hot = [&](int v) { return labels[node.base + v] == f + 1 ? 1.0F : 0.0F; };
    const Neighbours sums = sum_neighbours(node.successors, node.predecessors, one_hot);
    const float own = labels[i / types] == f + 1 ? self : 0.0F;
    input[i] = block.config.gated ? own + gates[f] * sums.successors +
                                        gates[round_up(types, 4) + f] * sums.predecessors
                                  : own + (sums.successors + sums.predecessors);
  }
}

// ---- Forward
// ---------------------------------------------------------------------------------------

// U_0 = W_0 V_0 + b_0, in float32: F is a handful.
__device__ inline void first_linear(const TrainBlock& block, const Chunk& chunk) {
  const int types = block.config.num_op_types;
  const float* input = block.at(block.plan.shared.input);
  for (int mt = block.warp; mt < block.row_tiles(); mt += block.warps) {
    const LaneFeatures f(block, mt);
    const float* low = block.small(block.plan.small.first) + f.low * types;
    const float* high = block.small(block.plan.small.first) + f.high * types;
    for (int n = 0; n < chunk.tiles; ++n) {
      float u[4] = {block.bias(0)[f.low], block.bias(0)[f.low], block.bias(0)[f.high],
                    block.bias(0)[f.high]};
      const int c0 = 8 * n + 2 * block.t;
      const int c1 = c0 + 1 < chunk.columns ? c0 + 1 : 0;
      const float* v0 = input + (c0 < chunk.columns ? c0 : 0) * types;
      const float* v1 = input + c1 * types;
      for (int k = 0; k < types; ++k) {
        u[0] += low[k] * v0[k];
        u[1] += low[k] * v1[k];
        u[2] += high[k] * v0[k];
        u[3] += high[k] * v1[k];
      }
      *block.saved(0, mt, chunk.tile(block, n)) = make_float4(u[0], u[1], u[2], u[3]);
    }
  }
}

// Y_j of the chunk into `target`, and into global memory where it is the input of `matrix` (or -1).
__device__ inline void write_outputs(const TrainBlock& block, const Chunk& chunk, int j,
                                     float* target, int matrix) {
  const int stride = operand_stride(block.config.hidden_dim);
  const int hidden = round_up(block.config.hidden_dim, kGradientTile);
  float* global = matrix < 0 ? nullptr
                             : block.work + block.plan.streamed[matrix].input +
                                   static_cast<std::int64_t>(chunk.row) * hidden;
  for (int mt = block.warp; mt < block.row_tiles(); mt += block.warps) {
    const LaneFeatures f(block, mt);
    const LaneNorm norm(block, j, f);
    for (int n = 0; n < chunk.tiles; ++n) {
      const Fragment u(*block.saved(j, mt, chunk.tile(block, n)));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + 2 * block.t + i % 2;
        const float y = column < chunk.columns ? norm.output(i, u.value[i]) : 0.0F;
        target[column * stride + f.of(i)] = y;
        if (global != nullptr && column < chunk.columns) global[column * hidden + f.of(i)] = y;
      }
    }
  }
}

// Four neighbouring features at a time.
__device__ inline float4 scaled_sum(const float4& a, const float4& x, const float4& y) {
  return make_float4(a.x + x.x * y.x, a.y + x.y * y.y, a.z + x.z * y.z, a.w + x.w * y.w);
}

__device__ inline float4 sum_columns(const float* states, int stride, unsigned mask) {
  float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const float4 x =
        *reinterpret_cast<const float4*>(states + (__ffs(static_cast<int>(m)) - 1) * stride);
    sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
  }
  return sum;
}

// V = (1 + eps_l) Y + A (g1 * Y) + A^T (g2 * Y), from `states` into `target` and global memory.
__device__ inline void aggregate(const TrainBlock& block, const Chunk& chunk, int l,
                                 const float* states, float* target, int matrix) {
  const int hidden = block.config.hidden_dim;
  const int stride = operand_stride(hidden);
  const int global_stride = round_up(hidden, kGradientTile);
  float* global = block.work + block.plan.streamed[matrix].input +
                  static_cast<std::int64_t>(chunk.row) * global_stride;
  const float self = 1.0F + block.small(block.plan.small.eps)[l];
  const float4 selves = make_float4(self, self, self, self);
  const float4 zero = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
  for (int i = block.thread; i < chunk.columns * (hidden / 4); i += block.threads) {
    const int column = i / (hidden / 4);
    const int f = i % (hidden / 4) * 4;
    const ColumnNode node(block, chunk, column);
    const float* cell = states + node.base * stride + f;
    const float4 own = *reinterpret_cast<const float4*>(states + column * stride + f);
    float4 v = scaled_sum(zero, selves, own);
    const float4 next = sum_columns(cell, stride, node.successors);
    const float4 previous = sum_columns(cell, stride, node.predecessors);
    if (block.config.gated) {
      const float* gates = block.small(block.gates(l)) + f;
      v = scaled_sum(v, *reinterpret_cast<const float4*>(gates), next);
      v = scaled_sum(v, *reinterpret_cast<const float4*>(gates + hidden), previous);
    } else {
      v = make_float4(v.x + (previous.x + next.x), v.y + (previous.y + next.y),
                      v.z + (previous.z + next.z), v.w + (previous.w + next.w));
    }
    *reinterpret_cast<float4*>(target + column * stride + f) = v;
    *reinterpret_cast<float4*>(global + column * global_stride + f) = v;
  }
}

// The two buffers of operands in turn: a warp may still read the last product's operand while
// others write the next one.
struct OperandBuffers {
  float* last;
  float* other;

  __device__ explicit OperandBuffers(const TrainBlock& block)
      : last(block.at(block.plan.shared.left)), other(block.at(block.plan.shared.right)) {}

  // The buffer to write now, which becomes the last.
  __device__ float* next() {
    float* buffer = other;
    other = last;
    last = buffer;
    return buffer;
  }
};

// V_j of the chunk for j >= 1 (j = L*K: the heads): returns the operand. Ends at a barrier.
__device__ inline const float* linear_input(const TrainBlock& block, const Chunk& chunk, int j,
                                            OperandBuffers& buffers) {
  const bool first_of_layer = j % block.config.num_mlp_layers == 0 && j < block.config.num_norms();
  float* states = buffers.next();
  write_outputs(block, chunk, j - 1, states, first_of_layer ? -1 : j - 1);
  __syncthreads();
  if (!first_of_layer) return states;
  float* aggregated = buffers.next();
  aggregate(block, chunk, j / block.config.num_mlp_layers, states, aggregated, j - 1);
  __syncthreads();
  return aggregated;
}

template <class Stream>
__device__ void forward_linear(const TrainBlock& block, Stream& stream, const Chunk& chunk, int j,
                               OperandBuffers& buffers) {
  const float* operand = linear_input(block, chunk, j, buffers);
  const auto save = [&](int mt, const auto& sums) {
    const LaneFeatures f(block, mt);
    const float low = block.bias(j)[f.low];
    const float high = block.bias(j)[f.high];
#pragma unroll
    for (int n = 0; n < Stream::kColumnTiles; ++n) {
      if (n < chunk.tiles) {
        *block.saved(j, mt, chunk.tile(block, n)) =
            make_float4(sums[n][0] + low, sums[n][1] + low, sums[n][2] + high, sums[n][3] + high);
      }
    }
  };
  stream.multiply(Product(block, j - 1, false), operand, operand_stride(block.config.hidden_dim),
                  chunk.tiles, save);
}

// ---- Batch statistics
// ------------------------------------------------------------------------------

// Where block b puts two values a feature for barrier `index`; two buffers take turns.
__device__ inline float* block_stats(const TrainBlock& block, int index, int b) {
  return block.work + block.plan.workspace.stats +
         (static_cast<std::int64_t>(index % 2) * block.plan.blocks + b) * 2 *
             block.config.hidden_dim;
}

// Folds the active blocks' pairs of values, four features at a time, blocks dealt to the threads of
// a feature in turn; `fold(b, pair, sums)` adds block b's. totals(f, first, second) gets the sums.
template <class Fold, class Total>
__device__ void merge_blocks(const TrainBlock& block, int index, Fold fold, Total totals) {
  const int hidden = block.config.hidden_dim;
  const int quads = hidden / 4;
  const int parts = block.threads / quads > 0 ? block.threads / quads : 1;
  float* scratch = block.at(block.plan.shared.scratch);  // [parts, 2, H]
  for (int i = block.thread; i < quads * parts; i += block.threads) {
    const int f = i % quads * 4;
    float4 sums[2] = {};
#pragma unroll 4
    for (int b = i / quads; b < block.active; b += parts) {
      const float* pair = block_stats(block, index, b) + f;
      fold(b, f, load_cg(reinterpret_cast<const float4*>(pair)),
           load_cg(reinterpret_cast<const float4*>(pair + hidden)), sums);
    }
    float* part = scratch + i / quads * 2 * hidden + f;
    *reinterpret_cast<float4*>(part) = sums[0];
    *reinterpret_cast<float4*>(part + hidden) = sums[1];
  }
  __syncthreads();
  for (int f = block.thread; f < hidden; f += block.threads) {
    float first = 0.0F;
    float second = 0.0F;
    for (int p = 0; p < parts; ++p) {
      first += scratch[p * 2 * hidden + f];
      second += scratch[p * 2 * hidden + hidden + f];
    }
    totals(f, first, second);
  }
  __syncthreads();
}

// Mean and sum of squared deviations of U_j over the block's rows, to global memory.
__device__ inline void publish_moments(const TrainBlock& block, int j) {
  const auto count = static_cast<float>(block.cells * block.config.num_nodes);
  float* stats = block_stats(block, j, block.rank);
  const auto each = [&](int mt, auto add) {
    for (int q = 0; q < block.chunks(); ++q) {
      const Chunk chunk(block, q);
      for (int n = 0; n < chunk.tiles; ++n) {
        const float4 u = *block.saved(j, mt, chunk.tile(block, n));
        const int column = 8 * n + 2 * block.t;
        if (column < chunk.columns) add(u.x, u.z);
        if (column + 1 < chunk.columns) add(u.y, u.w);
      }
    }
  };
  for (int mt = block.warp; mt < block.row_tiles(); mt += block.warps) {
    float low = 0.0F;
    float high = 0.0F;
    each(mt, [&](float a, float b) {
      low += a;
      high += b;
    });
    const float low_mean = quad_sum(low) / count;
    const float high_mean = quad_sum(high) / count;
    low = high = 0.0F;
    each(mt, [&](float a, float b) {
      low += (a - low_mean) * (a - low_mean);
      high += (b - high_mean) * (b - high_mean);
    });
    low = quad_sum(low);
    high = quad_sum(high);
    if (block.t == 0) {
      const LaneFeatures f(block, mt);
      stats[f.low] = low_mean;
      stats[f.high] = high_mean;
      stats[block.config.hidden_dim + f.low] = low;
      stats[block.config.hidden_dim + f.high] = high;
    }
  }
}

__device__ inline void update_running(const TrainBlock& block, int j, int f, float mean, float m2) {
  const int hidden = block.config.hidden_dim;
  float* running =
      block.params.running +
      (static_cast<std::int64_t>(block.model) * block.config.num_norms() + j) * 2 * hidden;
  const double variance = static_cast<double>(m2) / (block.rows - 1);
  running[f] = static_cast<float>(kBatchNormMomentum * static_cast<double>(mean) +
                                  (1.0 - kBatchNormMomentum) * static_cast<double>(running[f]));
  running[hidden + f] =
      static_cast<float>(kBatchNormMomentum * variance +
                         (1.0 - kBatchNormMomentum) * static_cast<double>(running[hidden + f]));
}

__device__ inline void merge_moments(const TrainBlock& block, int j) {
  const auto rows = static_cast<float>(block.rows);
  const float* first_block = block_stats(block, j, 0);
  const auto fold = [&](int b, int f, const float4& mean, const float4& m2, float4(&sums)[2]) {
    const auto count = static_cast<float>(block.cells_of(b) * block.config.num_nodes);
    const float4 shift = load_cg(reinterpret_cast<const float4*>(first_block + f));
    const auto add = [count](float m, float s, float square, float& sum, float& squares) {
      sum += count * (m - s);
      squares += square + count * (m - s) * (m - s);
    };
    add(mean.x, shift.x, m2.x, sums[0].x, sums[1].x);
    add(mean.y, shift.y, m2.y, sums[0].y, sums[1].y);
    add(mean.z, shift.z, m2.z, sums[0].z, sums[1].z);
    add(mean.w, shift.w, m2.w, sums[0].w, sums[1].w);
  };
  merge_blocks(block, j, fold, [&](int f, float sum, float squares) {
    const float offset = sum / rows;
    const float mean = load_cg(first_block + f) + offset;
    const float m2 = fmaxf(squares - sum * offset, 0.0F);
    block.mean(j)[f] = mean;
    block.inverse_std(j)[f] = 1.0F / sqrtf(m2 / rows + kBatchNormTiny);
    if (block.rank == 0) update_running(block, j, f, mean, m2);
  });
}

// Mean and 1/std of the running statistics, which frozen mode uses throughout.
__device__ inline void load_running(const TrainBlock& block) {
  const int hidden = block.config.hidden_dim;
  const float* running = block.params.running + static_cast<std::int64_t>(block.model) *
                                                    block.config.num_norms() * 2 * hidden;
  for (int i = block.thread; i < block.config.num_norms() * hidden; i += block.threads) {
    const int j = i / hidden;
    const int f = i % hidden;
    block.mean(j)[f] = running[j * 2 * hidden + f];
    block.inverse_std(j)[f] = 1.0F / sqrtf(running[j * 2 * hidden + hidden + f] + kBatchNormTiny);
  }
}

template <class Stream>
__device__ void encode_forward(const TrainBlock& block, Stream& stream, OperandBuffers& buffers) {
  for (int j = 0; j < block.config.num_norms(); ++j) {
    for (int q = 0; q < block.chunks(); ++q) {
      const Chunk chunk(block, q);
      if (j == 0) {
        aggregate_input(block, chunk);
        __syncthreads();
        first_linear(block, chunk);
        if (block.chunks() > 1) __syncthreads();
      } else {
        forward_linear(block, stream, chunk, j, buffers);
      }
    }
    if (block.config.batch_mode) {
      publish_moments(block, j);
      block.sync_active();
      merge_moments(block, j);
    }
  }
}

}  // namespace a2v

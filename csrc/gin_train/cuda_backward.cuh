// SPDX-License-Identifier: Apache-2.0
// Backward pass through the GIN layers, over the block's own cells. With dZ_j the gradient before
// ReLU and n rows in the batch:
//
//   dgamma_j = sum dZ_j X_j;  dbeta_j = sum dZ_j
//   dU_j = gamma_j / std_j (dZ_j - dbeta_j / n - X_j dgamma_j / n)    (batch mode)
//        = gamma_j / std_j  dZ_j                                      (frozen mode)
//   dV_j = W_j^T dU_j;  dY_{j-1} = dV_j, or through the aggregation, whose transpose swaps the
//   gates
//
// dZ_j is saved as fragments; dU_j goes to shared memory as the next product's operand and to
// global memory for the weight gradient.
#pragma once

#include "gin_train/cuda_encoder.cuh"

namespace a2v {

template <class Stream>
class EncoderBackward {
 public:
  __device__ EncoderBackward(const TrainBlock& block, Stream& stream, OperandBuffers& buffers)
      : block_(block), stream_(stream), buffers_(buffers), config_(block.config) {}

  // Takes the gradient of Y_j for row tile mt of the chunk; fragments of dZ_j and both sums.
  template <class Sums>
  __device__ void take_outputs(const Chunk& chunk, int j, int mt, const Sums& sums) const {
    const LaneFeatures f(block_, mt);
    const LaneNorm norm(block_, j, f);
    float beta[2] = {0.0F, 0.0F};
    float gamma[2] = {0.0F, 0.0F};
#pragma unroll
    for (int n = 0; n < Stream::kColumnTiles; ++n) {
      if (n < chunk.tiles) {
        const Fragment u(*block_.saved(j, mt, chunk.tile(block_, n)));
        float dz[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          dz[i] = before_relu(chunk, norm, n, i, u.value[i], sums[n][i], beta, gamma);
        }
        *block_.saved(config_.num_norms(), mt, chunk.tile(block_, n)) =
            make_float4(dz[0], dz[1], dz[2], dz[3]);
      }
    }
    add_features(f, block_.beta_grad(j), beta);
    add_features(f, block_.gamma_grad(j), gamma);
  }

  __device__ void run() {
    for (int j = config_.num_norms() - 1; j >= 0; --j) {
      if (config_.batch_mode) merge_sums(j);
      for (int q = 0; q < block_.chunks(); ++q) {
        const Chunk chunk(block_, q);
        float* operand = buffers_.next();
        write_gradients(chunk, j, operand);
        if (j > 0) {
          __syncthreads();
          linear(chunk, j, operand);
        } else {
          first_linear(chunk, operand);
        }
      }
    }
  }

 private:
  // dZ of one entry, added to the lane's sums; 0 for columns beyond the chunk.
  __device__ float before_relu(const Chunk& chunk, const LaneNorm& norm, int n, int i, float u,
                               float gradient, float (&beta)[2], float (&gamma)[2]) const {
    const int column = 8 * n + 2 * block_.t + i % 2;
    const float x = norm.normalized(i, u);
    const bool passes = column < chunk.columns && norm.before_relu(i, x) > 0.0F;
    const float dz = passes ? gradient : 0.0F;
    beta[i / 2] += dz;
    gamma[i / 2] += passes ? dz * x : 0.0F;
    return dz;
  }

  // Adds a lane's sums over its columns, for its two features, to packed gradients.
  __device__ void add_features(const LaneFeatures& f, float* target, const float (&sums)[2]) const {
    const float low = quad_sum(sums[0]);
    const float high = quad_sum(sums[1]);
    if (block_.t == 0) {
      target[f.low] += low;
      target[f.high] += high;
    }
  }

  // Sums of dZ_j and dZ_j X_j over the batch, divided by its rows, into `totals`.
  __device__ void merge_sums(int j) const {
    const int hidden = config_.hidden_dim;
    const int index = 2 * config_.num_norms() - 1 - j;
    float* stats = block_stats(block_, index, block_.rank);
    __syncthreads();
    for (int f = block_.thread; f < hidden; f += block_.threads) {
      stats[f] = block_.beta_grad(j)[f];
      stats[hidden + f] = block_.gamma_grad(j)[f];
    }
    block_.sync_active();
    const auto fold = [](int, int, const float4& beta, const float4& gamma, float4(&sums)[2]) {
      const float4 one = make_float4(1.0F, 1.0F, 1.0F, 1.0F);
      sums[0] = scaled_sum(sums[0], one, beta);
      sums[1] = scaled_sum(sums[1], one, gamma);
    };
    float* totals = block_.at(block_.plan.shared.totals);
    const auto rows = static_cast<float>(block_.rows);
    merge_blocks(block_, index, fold, [&](int f, float beta, float gamma) {
      totals[f] = beta / rows;
      totals[hidden + f] = gamma / rows;
    });
  }

  // dU_j into the operand and global memory; bias gradient.
  __device__ void write_gradients(const Chunk& chunk, int j, float* operand) const {
    const int hidden = config_.hidden_dim;
    const int stride = operand_stride(hidden);
    const int global_stride = round_up(hidden, kGradientTile);
    const float* totals = block_.at(block_.plan.shared.totals);
    float* global = j == 0 ? nullptr
                           : block_.work + block_.plan.streamed[j - 1].output_grad +
                                 static_cast<std::int64_t>(chunk.row) * global_stride;
    for (int mt = block_.warp; mt < block_.row_tiles(); mt += block_.warps) {
      const LaneFeatures f(block_, mt);
      const LaneNorm norm(block_, j, f);
      float bias[2] = {0.0F, 0.0F};
      for (int n = 0; n < chunk.tiles; ++n) {
        const Fragment dz(*block_.saved(config_.num_norms(), mt, chunk.tile(block_, n)));
        const Fragment u(*block_.saved(j, mt, chunk.tile(block_, n)));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 8 * n + 2 * block_.t + i % 2;
          float du = dz.value[i];
          if (config_.batch_mode) {
            du -= totals[f.of(i)] + norm.normalized(i, u.value[i]) * totals[hidden + f.of(i)];
          }
          du = column < chunk.columns ? norm.gamma[i / 2] * norm.scale[i / 2] * du : 0.0F;
          bias[i / 2] += du;
          operand[column * stride + f.of(i)] = du;
          if (global != nullptr && column < chunk.columns) {
            global[column * global_stride + f.of(i)] = du;
          }
        }
      }
      add_features(f, block_.bias_grad(j), bias);
    }
  }

  __device__ void linear(const Chunk& chunk, int j, const float* operand) {
    const Product product(block_, j - 1, true);
    const int stride = operand_stride(config_.hidden_dim);
    if (j % config_.num_mlp_layers != 0) {
      stream_.multiply(product, operand, stride, chunk.tiles,
                       [&](int mt, const auto& sums) { take_outputs(chunk, j - 1, mt, sums); });
      return;
    }
    float* inputs = buffers_.next();
    stream_.multiply(product, operand, stride, chunk.tiles,
                     [&](int mt, const auto& sums) { store_columns(chunk, mt, sums, inputs); });
    __syncthreads();
    for (int mt = block_.warp; mt < block_.row_tiles(); mt += block_.warps) {
      disaggregate(chunk, j, mt, inputs);
    }
  }

  template <class Sums>
  __device__ void store_columns(const Chunk& chunk, int mt, const Sums& sums, float* target) const {
    const LaneFeatures f(block_, mt);
    const int stride = operand_stride(config_.hidden_dim);
#pragma unroll
    for (int n = 0; n < Stream::kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + 2 * block_.t + i % 2;
        if (column < chunk.columns) target[column * stride + f.of(i)] = sums[n][i];
      }
    }
  }

  // From dV_j of layer l's first linear (`inputs`) to dY_{j-1}; gradients of eps_l and of the
  // gates.
  __device__ void disaggregate(const Chunk& chunk, int j, int mt, const float* inputs) const {
    const LaneFeatures f(block_, mt);
    const LaneNorm norm(block_, j - 1, f);
    const int l = j / config_.num_mlp_layers;
    float next_gate[2] = {0.0F, 0.0F};
    float previous_gate[2] = {0.0F, 0.0F};
    float eps = 0.0F;
    float sums[Stream::kColumnTiles][4];
#pragma unroll
    for (int n = 0; n < Stream::kColumnTiles; ++n) {
      if (n < chunk.tiles) {
        const Fragment u(*block_.saved(j - 1, mt, chunk.tile(block_, n)));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 8 * n + 2 * block_.t + i % 2;
          sums[n][i] = 0.0F;
          if (column < chunk.columns) {
            const float y = norm.output(i, u.value[i]);
            sums[n][i] = input_gradient(chunk, l, column, f.of(i), inputs, y, eps, next_gate[i / 2],
                                        previous_gate[i / 2]);
          }
        }
      }
    }
    eps = warp_sum(eps);
    if (block_.lane == 0) {
      block_.at(block_.plan.shared.eps_parts)[l * block_.row_tiles() + mt] += eps;
    }
    if (config_.gated) {
      float* gates = block_.small_grad(block_.gates(l));
      add_features(f, gates, next_gate);
      add_features(f, gates + config_.hidden_dim, previous_gate);
    }
    take_outputs(chunk, j - 1, mt, sums);
  }

  // dY of one node and feature: the node's successors got it through A^T and gate 2, its
  // predecessors through A and gate 1.
  __device__ float input_gradient(const Chunk& chunk, int l, int column, int feature,
                                  const float* inputs, float y, float& eps, float& next_gate,
                                  float& previous_gate) const {
    const int stride = operand_stride(config_.hidden_dim);
    const ColumnNode node(block_, chunk, column);
    const auto value = [&](int v) { return inputs[(node.base + v) * stride + feature]; };
    const Neighbours through = sum_neighbours(node.successors, node.predecessors, value);
    const float own = inputs[column * stride + feature];
    const float self = 1.0F + block_.small(block_.plan.small.eps)[l];
    eps += own * y;
    if (!config_.gated) return self * own + (through.successors + through.predecessors);
    const float* gates = block_.small(block_.gates(l));
    next_gate += y * through.predecessors;
    previous_gate += y * through.successors;
    return self * own + gates[feature] * through.predecessors +
           gates[config_.hidden_dim + feature] * through.successors;
  }

  // ---- Linear 0: its input is the cells' one-hot labels
  // ------------------------------------------------

  __device__ void first_linear(const Chunk& chunk, const float* gradients) const {
    const int types = config_.num_op_types;
    const int stride = operand_stride(config_.hidden_dim);
    const float* input = block_.at(block_.plan.shared.input);
    if (block_.chunks() > 1) aggregate_input(block_, chunk);
    __syncthreads();
    for (int i = block_.thread; i < config_.hidden_dim * types; i += block_.threads) {
      float sum = 0.0F;
      for (int column = 0; column < chunk.columns; ++column) {
        sum += gradients[column * stride + i / types] * input[column * types + i % types];
      }
      block_.small_grad(block_.plan.small.first)[i] += sum;
    }
    input_weights(chunk, gradients);
    __syncthreads();
  }

  // Gradients of eps_0 and of the first layer's gates. One warp an operation type: it computes
  // dV_0[column, f] for all columns, adding up what each tells.
  __device__ void input_weights(const Chunk& chunk, const float* gradients) const {
    const int types = config_.num_op_types;
    const std::uint8_t* labels = block_.labels() + chunk.first * config_.num_nodes;
    for (int f = block_.warp; f < types; f += block_.warps) {
      float eps = 0.0F;
      float next_gate = 0.0F;
      float previous_gate = 0.0F;
      for (int column = 0; column < chunk.columns; ++column) {
        const float dv = warp_sum(input_gradient_part(gradients, column, f));
        const ColumnNode node(block_, chunk, column);
        const auto one_hot = [&](int v) { return labels[node.base + v] == f + 1 ? 1.0F : 0.0F; };
        const Neighbours sums = sum_neighbours(node.successors, node.predecessors, one_hot);
        if (labels[column] == f + 1) eps += dv;
        next_gate += dv * sums.successors;
        previous_gate += dv * sums.predecessors;
      }
      if (block_.lane == 0) {
        block_.at(block_.plan.shared.input_parts)[f] += eps;
        if (config_.gated) {
          *block_.small_grad(block_.gates(0) + f) += next_gate;
          *block_.small_grad(block_.gates(0) + round_up(types, 4) + f) += previous_gate;
        }
      }
    }
  }

  __device__ float input_gradient_part(const float* gradients, int column, int f) const {
    const int types = config_.num_op_types;
    const float* weight = block_.small(block_.plan.small.first);
    float sum = 0.0F;
    for (int h = block_.lane; h < config_.hidden_dim; h += kWarpSize) {
      sum += gradients[column * operand_stride(config_.hidden_dim) + h] * weight[h * types + f];
    }
    return sum;
  }

  const TrainBlock& block_;
  Stream& stream_;
  OperandBuffers& buffers_;
  const GinTrainConfig& config_;
};

}  // namespace a2v

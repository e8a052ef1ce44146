// SPDX-License-Identifier: Apache-2.0
// From the heads to the loss and back, for one chunk of cells: reparameterisation, dropout, mixer,
// operation and edge logits, losses, and the gradients of all of it. Equations: models/decoder.py
// and pretrain/objective.py. Everything is local to a cell; only sums over cells leave the block.
#pragma once

#include "gin_train/cuda_encoder.cuh"

namespace a2v {

// Factors of the loss terms and of their gradients for a batch of B cells of N nodes.
struct LossScale {
  float node;
  float edge;
  float kl;  // of (1 + 2 log sigma - mu^2 - sigma^2), negative

  __device__ explicit LossScale(const TrainBlock& block) {
    const GinTrainConfig& c = block.config;
    const auto cells = static_cast<float>(block.batch);
    const auto nodes = static_cast<float>(c.num_nodes);
    const float rows = cells * nodes;
    if (c.elbo) {
      node = edge = 1.0F / cells;
      kl = -0.5F * c.beta / cells;
    } else {
      node = c.softmax ? 1.0F / rows : 1.0F / (rows * static_cast<float>(c.num_classes));
      edge = 1.0F / (rows * nodes);
      kl = -0.5F * c.beta / (rows * rows);
    }
    if (!c.variational) kl = 0.0F;
  }
};

// Binary cross-entropy of a logit, and its derivative. On probabilities it saturates as torch's
// float32 does: logarithms are clamped at -100 and p (1 - p) at 1e-12.
struct Binary {
  float loss;
  float gradient;

  __device__ Binary(float x, float target, bool logits) {
    const float p = 1.0F / (1.0F + expf(-x));
    if (logits) {
      loss = (1.0F - target) * x + fmaxf(-x, 0.0F) + log1pf(expf(-fabsf(x)));
      gradient = p - target;
    } else {
      loss = -(target * fmaxf(logf(p), -100.0F) + (1.0F - target) * fmaxf(log1pf(-p), -100.0F));
      const float spread = (1.0F - p) * p;
      gradient = (p - target) / fmaxf(spread, 1e-12F) * spread;
    }
  }
};

template <class Stream>
class Decoder {
 public:
  __device__ Decoder(const TrainBlock& block, Stream& stream, const Chunk& chunk)
      : block_(block), stream_(stream), chunk_(chunk), config_(block.config), scale_(block) {}

  // Heads forward to heads backward; `consume(mt, sums)` gets the gradient of Y_{L*K-1}.
  template <class Consume>
  __device__ void run(const float* operand, Consume consume) {
    heads(operand);
    __syncthreads();
    sample();
    __syncthreads();
    if (config_.node_mixing != 0) mix();
    logits();
    __syncthreads();
    if (config_.bilinear) {
      source_gradients();
      __syncthreads();
    }
    parameter_gradients();
    latent_gradients();
    __syncthreads();
    if (config_.node_mixing != 0) mix_backward();
    head_gradients();
    __syncthreads();
    head_bias_gradients();
    stream_.multiply(Product(block_, block_.plan.heads, true), array(shared().heads), head_stride(),
                     chunk_.tiles, consume);
  }

 private:
  __device__ const SharedLayout& shared() const { return block_.plan.shared; }
  __device__ float* array(int offset) const { return block_.at(offset); }
  __device__ int head_stride() const { return operand_stride(block_.plan.head_rows); }
  __device__ int cell_stride() const { return operand_stride(block_.plan.flat); }
  __device__ int mixer_stride() const { return operand_stride(config_.node_mixing); }
  __device__ int latent() const { return config_.latent_dim; }
  // Element d of a column in an array [cells, cell_stride].
  __device__ int latent_at(int column) const {
    return column / config_.num_nodes * cell_stride() + column % config_.num_nodes * latent();
  }
  __device__ float* global_row(std::int64_t array_offset, int row, int width) const {
    return block_.work + array_offset +
           static_cast<std::int64_t>(row) * round_up(width, kGradientTile);
  }
  __device__ int first_cell() const { return block_.first_cell() + chunk_.first; }
  __device__ const StreamedMatrix& matrix(int index) const { return block_.plan.streamed[index]; }

  // Runs f(i) for i below count, dealt to the block's threads.
  template <class F>
  __device__ void each(int count, F f) const {
    for (int i = block_.thread; i < count; i += block_.threads) f(i);
  }

  __device__ void heads(const float* operand) {
    float* target = array(shared().heads);
    const auto store = [&](int mt, const auto& sums) {
      const LaneFeatures f(block_, mt);
      for_fragment(sums, [&](int i, int column, float value) {
        const int row = f.of(i);
        if (row < block_.plan.head_rows) {
          target[column * head_stride() + row] =
              value + block_.small(block_.plan.small.head_bias)[row];
        }
      });
    };
    stream_.multiply(Product(block_, block_.plan.heads, false), operand,
                     operand_stride(config_.hidden_dim), chunk_.tiles, store);
  }

  // visit(i, column, value) for the entries of a result that stand for columns of the chunk.
  template <class Sums, class Visit>
  __device__ void for_fragment(const Sums& sums, Visit visit, int columns = -1) const {
    const int limit = columns < 0 ? chunk_.columns : columns;
#pragma unroll
    for (int n = 0; n < Stream::kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + 2 * block_.t + i % 2;
        if (column < limit) visit(i, column, sums[n][i]);
      }
    }
  }

  // ---- z
  // ------------------------------------------------------------------------------------------

  __device__ bool noisy() const { return config_.batch_mode && config_.variational; }
  __device__ bool drops() const { return config_.batch_mode && config_.dropout > 0.0F; }

  // Fills scaled with sigma * noise and keep with the dropout factors, four elements a Philox
  // block.
  __device__ void draw() {
    const int count = chunk_.columns * latent();
    const std::int64_t first = static_cast<std::int64_t>(chunk_.row) * latent();
    const auto skipped = static_cast<int>(first % 4);
    const auto seed = static_cast<std::uint64_t>(block_.params.seed[block_.model]);
    const std::uint64_t step = block_.params.first_step + static_cast<std::uint64_t>(block_.step);
    const std::uint32_t threshold = dropout_threshold(config_.dropout);
    each((count + skipped + 3) / 4, [&](int i) {
      const auto counter = static_cast<std::uint32_t>(first / 4 + i);
      PhiloxNormals normals{};
      PhiloxWords words{};
      if (noisy()) normals = philox_normals(philox(seed, step, PhiloxStream::kNoise, counter));
      if (drops()) words = philox(seed, step, PhiloxStream::kDropout, counter);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int index = 4 * i + e - skipped;
        if (index >= 0 && index < count) place(index, normals.value[e], words.word[e] >= threshold);
      }
    });
  }

  __device__ void place(int index, float normal, bool kept) {
    const std::int64_t injected =
        (block_.model * block_.params.cells_in_call + block_.step * block_.params.batch_size) *
            block_.plan.flat +
        static_cast<std::int64_t>(chunk_.row) * latent() + index;
    if (noisy() && block_.params.noise != nullptr) normal = block_.params.noise[injected];
    if (drops() && block_.params.keep != nullptr) kept = block_.params.keep[injected] != 0;
    const int column = index / latent();
    const float log_sigma =
        noisy() ? array(shared().heads)[column * head_stride() + latent() + index % latent()]
                : 0.0F;
    array(shared().scaled)[index] = noisy() ? normal * expf(log_sigma) : 0.0F;
    array(shared().keep)[index] = !drops() ? 1.0F : kept ? 1.0F / (1.0F - config_.dropout) : 0.0F;
  }

  // z after dropout; the KL term; sums of mu and mu^2.
  __device__ void sample() {
    if (noisy() || drops()) {
      draw();
      __syncthreads();
    }
    float* z = array(shared().z);
    float kl = 0.0F;
    each(chunk_.columns * latent(), [&](int i) {
      const int column = i / latent();
      const int d = i % latent();
      const float* head = array(shared().heads) + column * head_stride() + d;
      const float mu = head[0];
      float value = mu;
      if (noisy()) value += array(shared().scaled)[i];
      if (drops()) value *= array(shared().keep)[i];
      z[latent_at(column) + d] = value;
      if (config_.variational) {
        const float log_sigma = head[latent()];
        const float sigma = expf(log_sigma);
        kl += 1.0F + 2.0F * log_sigma - mu * mu - sigma * sigma;
      }
    });
    pad_cells(z);
    add_moments();
    kl_ = kl;
  }

  // Zeroes the columns of operands [cells, N*D] that pad N*D to a multiple of 16.
  __device__ void pad_cells(float* operand) const {
    const int flat = block_.plan.flat;
    const int padding = round_up(flat, 16) - flat;
    if (padding == 0) return;
    each(chunk_.cells * padding,
         [&](int i) { operand[i / padding * cell_stride() + flat + i % padding] = 0.0F; });
  }

  __device__ void add_moments() const {
    auto* moments = reinterpret_cast<double*>(array(shared().moments));
    each(block_.plan.flat, [&](int i) {
      double sum = 0.0;
      double squares = 0.0;
      for (int c = 0; c < chunk_.cells; ++c) {
        const double mu = array(
            shared().heads)[(c * config_.num_nodes + i / latent()) * head_stride() + i % latent()];
        sum += mu;
        squares += mu * mu;
      }
      moments[i] += sum;
      moments[block_.plan.flat + i] += squares;
    });
  }

  // ---- Mixer: z + W2 ReLU(W1 z + b1) + b2 over the whole cell
  // -----------------------------------------

  __device__ int cell_tiles() const { return (chunk_.cells + 7) / 8; }

  __device__ void mix() {
    float* z = array(shared().z);
    float* hidden = array(shared().hidden);
    float* mixed = array(shared().mixed);
    const StreamedMatrix& in = matrix(block_.plan.mixer_in());
    const StreamedMatrix& out = matrix(block_.plan.mixer_out());
    each(chunk_.cells * block_.plan.flat, [&](int i) {
      const int cell = i / block_.plan.flat;
      const int e = i % block_.plan.flat;
      global_row(in.input, first_cell() + cell, in.cols)[e] = z[cell * cell_stride() + e];
    });
    stream_.multiply(Product(block_, block_.plan.mixer_in(), false), z, cell_stride(), cell_tiles(),
                     [&](int mt, const auto& sums) {
                       const LaneFeatures f(block_, mt);
                       for_fragment(
                           sums,
                           [&](int i, int cell, float value) {
                             const int row = f.of(i);
                             const float bias = row < in.rows
                                                    ? block_.small(block_.plan.small.mixer_in)[row]
                                                    : 0.0F;
                             const float h = fmaxf(value + bias, 0.0F);
                             hidden[cell * mixer_stride() + row] = h;
                             if (row < in.rows)
                               global_row(out.input, first_cell() + cell, out.cols)[row] = h;
                           },
                           chunk_.cells);
                     });
    __syncthreads();
    stream_.multiply(Product(block_, block_.plan.mixer_out(), false), hidden, mixer_stride(),
                     cell_tiles(), [&](int mt, const auto& sums) {
                       const LaneFeatures f(block_, mt);
                       for_fragment(
                           sums,
                           [&](int i, int cell, float value) {
                             const int row = f.of(i);
                             if (row < out.rows) {
                               mixed[cell * cell_stride() + row] =
                                   z[cell * cell_stride() + row] +
                                   (value + block_.small(block_.plan.small.mixer_out)[row]);
                             }
                           },
                           chunk_.cells);
                     });
    __syncthreads();
  }

  // z_grad becomes the gradient of the mixer's input; starts from that of its output.
  __device__ void mix_backward() {
    float* grad = array(shared().z_grad);
    const float* hidden = array(shared().hidden);
    float* hidden_grad = array(shared().hidden_grad);
    const StreamedMatrix& in = matrix(block_.plan.mixer_in());
    const StreamedMatrix& out = matrix(block_.plan.mixer_out());
    each(chunk_.cells * block_.plan.flat, [&](int i) {
      const int cell = i / block_.plan.flat;
      const int e = i % block_.plan.flat;
      global_row(out.output_grad, first_cell() + cell, out.rows)[e] =
          grad[cell * cell_stride() + e];
    });
    stream_.multiply(Product(block_, block_.plan.mixer_out(), true), grad, cell_stride(),
                     cell_tiles(), [&](int mt, const auto& sums) {
                       const LaneFeatures f(block_, mt);
                       for_fragment(
                           sums,
                           [&](int i, int cell, float value) {
                             const int row = f.of(i);
                             const float h =
                                 hidden[cell * mixer_stride() + row] > 0.0F ? value : 0.0F;
                             hidden_grad[cell * mixer_stride() + row] = h;
                             if (row < in.rows)
                               global_row(in.output_grad, first_cell() + cell, in.rows)[row] = h;
                           },
                           chunk_.cells);
                     });
    __syncthreads();
    each(in.rows, [&](int i) {
      add_cells(block_.plan.small.mixer_in + i, hidden_grad + i, mixer_stride());
    });
    each(out.rows,
         [&](int i) { add_cells(block_.plan.small.mixer_out + i, grad + i, cell_stride()); });
    __syncthreads();
    stream_.multiply(Product(block_, block_.plan.mixer_in(), true), hidden_grad, mixer_stride(),
                     cell_tiles(), [&](int mt, const auto& sums) {
                       const LaneFeatures f(block_, mt);
                       for_fragment(
                           sums,
                           [&](int i, int cell, float value) {
                             if (f.of(i) < in.cols) grad[cell * cell_stride() + f.of(i)] += value;
                           },
                           chunk_.cells);
                     });
    __syncthreads();
  }

  // Adds the sum over the chunk's cells of one entry to a packed gradient.
  __device__ void add_cells(int parameter, const float* entry, int stride) const {
    float sum = 0.0F;
    for (int c = 0; c < chunk_.cells; ++c) sum += entry[c * stride];
    *block_.small_grad(parameter) += sum;
  }

  // ---- Logits and losses
  // --------------------------------------------------------------------------------

  // Gradients of the logits, in place of the logits; adds the losses.
  __device__ void logits() {
    if (config_.bilinear) {
      sources();
      __syncthreads();
    }
    float node = 0.0F;
    float edge = 0.0F;
    if (config_.softmax) {
      each(chunk_.columns, [&](int column) { node += softmax_node(column); });
    } else {
      each(chunk_.columns * config_.num_classes, [&](int i) { node += binary_node(i); });
    }
    const int pairs = config_.num_nodes * config_.num_nodes;
    each(chunk_.cells * pairs, [&](int i) { edge += one_edge(i / pairs, i % pairs); });
    add_losses(node, edge);
  }

  __device__ float dot(const float* a, const float* b) const {
    float sum = 0.0F;
    for (int d = 0; d < latent(); ++d) sum += a[d] * b[d];
    return sum;
  }

  __device__ float node_logit(int column, int label) const {
    const SmallLayout& small = block_.plan.small;
    const float* z = array(shared().mixed) + latent_at(column);
    float logit = dot(z, block_.small(small.op_weight) + label * latent()) +
                  block_.small(small.op_bias)[label];
    if (config_.position_bias) {
      logit +=
          block_.small(small.node_bias)[column % config_.num_nodes * config_.num_classes + label];
    }
    return logit;
  }

  __device__ int label_of(int column) const {
    return block_.labels()[chunk_.first * config_.num_nodes + column];
  }

  __device__ float binary_node(int i) {
    const int column = i / config_.num_classes;
    const int label = i % config_.num_classes;
    const float target = label_of(column) == label + 1 ? 1.0F : 0.0F;
    const Binary term(node_logit(column, label), target, config_.logits);
    array(shared().logits)[i] = term.gradient * scale_.node;
    return label_of(column) == kCorruptLabel ? NAN : term.loss;
  }

  __device__ float softmax_node(int column) {
    const int classes = config_.num_classes;
    float* logit = array(shared().logits) + column * classes;
    float largest = -INFINITY;
    for (int c = 0; c < classes; ++c) {
      logit[c] = node_logit(column, c);
      largest = fmaxf(largest, logit[c]);
    }
    float sum = 0.0F;
    for (int c = 0; c < classes; ++c) sum += expf(logit[c] - largest);
    // An absent node is class F, or counts nothing where there is no such class.
    const int label = label_of(column);
    if (label == kCorruptLabel) return NAN;
    const int target = label > 0 ? label - 1 : classes > config_.num_op_types ? classes - 1 : -1;
    const float log_sum = largest + logf(sum);
    const float loss = target < 0 ? 0.0F : log_sum - logit[target];
    for (int c = 0; c < classes; ++c) {
      const float p = expf(logit[c] - log_sum);
      logit[c] = target < 0 ? 0.0F : (p - (c == target ? 1.0F : 0.0F)) * scale_.node;
    }
    return loss;
  }

  // Left factors of the edge logits: z, or z W.
  __device__ const float* source(int column) const {
    return config_.bilinear ? array(shared().source) + column * latent()
                            : array(shared().mixed) + latent_at(column);
  }

  __device__ void sources() {
    const float* weight = block_.small(block_.plan.small.bilinear);
    each(chunk_.columns * latent(), [&](int i) {
      const float* z = array(shared().mixed) + latent_at(i / latent());
      float sum = 0.0F;
      for (int d = 0; d < latent(); ++d) sum += z[d] * weight[d * latent() + i % latent()];
      array(shared().source)[i] = sum;
    });
  }

  __device__ float one_edge(int cell, int pair) {
    const int nodes = config_.num_nodes;
    const int from = pair / nodes;
    const int to = pair % nodes;
    float* gradient = array(shared().edges) + cell * nodes * nodes + pair;
    *gradient = 0.0F;
    if (from >= to) return 0.0F;
    const int column = cell * nodes;
    float logit = dot(source(column + from), array(shared().mixed) + latent_at(column + to));
    if (config_.position_bias) logit += block_.small(block_.plan.small.edge_bias)[pair];
    const ColumnNode target(block_, chunk_, column + to);
    const Binary term(logit, static_cast<float>(target.predecessors >> from & 1U), config_.logits);
    *gradient = term.gradient * scale_.edge;
    return term.loss;
  }

  __device__ void add_losses(float node, float edge) {
    const float sum = block_.block_sums(node * scale_.node, edge * scale_.edge, kl_ * scale_.kl);
    if (block_.thread < 3) {
      reinterpret_cast<double*>(array(shared().losses))[block_.thread] += static_cast<double>(sum);
    }
  }

  // ---- Gradients
  // ----------------------------------------------------------------------------------------

  // Gradient of source(column)[d]: sum over later nodes.
  __device__ float source_gradient(int column, int d) const {
    const int nodes = config_.num_nodes;
    const int from = column % nodes;
    const int base = column - from;
    const float* edge = array(shared().edges) + base * nodes + from * nodes;
    float sum = 0.0F;
    for (int to = from + 1; to < nodes; ++to) {
      sum += edge[to] * array(shared().mixed)[latent_at(base + to) + d];
    }
    return sum;
  }

  __device__ void source_gradients() {
    each(chunk_.columns * latent(), [&](int i) {
      array(shared().source_grad)[i] = source_gradient(i / latent(), i % latent());
    });
  }

  __device__ void latent_gradients() {
    const int nodes = config_.num_nodes;
    const float* op_weight = block_.small(block_.plan.small.op_weight);
    const float* bilinear = block_.small(block_.plan.small.bilinear);
    float* target = array(shared().z_grad);
    each(chunk_.columns * latent(), [&](int i) {
      const int column = i / latent();
      const int d = i % latent();
      const float* logit = array(shared().logits) + column * config_.num_classes;
      float sum = 0.0F;
      for (int c = 0; c < config_.num_classes; ++c) sum += logit[c] * op_weight[c * latent() + d];
      const int to = column % nodes;
      const int base = column - to;
      for (int from = 0; from < to; ++from) {
        sum += array(shared().edges)[base * nodes + from * nodes + to] * source(base + from)[d];
      }
      if (config_.bilinear) {
        sum += dot(bilinear + d * latent(), array(shared().source_grad) + column * latent());
      } else {
        sum += source_gradient(column, d);
      }
      target[latent_at(column) + d] = sum;
    });
    pad_cells(target);
  }

  // Of the operation head, the bilinear form and the position biases.
  __device__ void parameter_gradients() {
    const SmallLayout& small = block_.plan.small;
    const int classes = config_.num_classes;
    const int nodes = config_.num_nodes;
    const float* logit = array(shared().logits);
    each(classes * latent(), [&](int i) {
      float sum = 0.0F;
      for (int column = 0; column < chunk_.columns; ++column) {
        sum += logit[column * classes + i / latent()] *
               array(shared().mixed)[latent_at(column) + i % latent()];
      }
      block_.small_grad(small.op_weight)[i] += sum;
    });
    each(classes, [&](int c) {
      float sum = 0.0F;
      for (int column = 0; column < chunk_.columns; ++column) sum += logit[column * classes + c];
      block_.small_grad(small.op_bias)[c] += sum;
    });
    if (config_.bilinear) {
      each(latent() * latent(), [&](int i) {
        float sum = 0.0F;
        for (int column = 0; column < chunk_.columns; ++column) {
          sum += array(shared().mixed)[latent_at(column) + i / latent()] *
                 array(shared().source_grad)[column * latent() + i % latent()];
        }
        block_.small_grad(small.bilinear)[i] += sum;
      });
    }
    if (config_.position_bias) {
      each(nodes * classes,
           [&](int i) { add_cells(small.node_bias + i, logit + i, nodes * classes); });
      each(nodes * nodes, [&](int i) {
        add_cells(small.edge_bias + i, array(shared().edges) + i, nodes * nodes);
      });
    }
  }

  // Gradients of mu and log sigma in place of both; they are the operand of the product that
  // follows.
  __device__ void head_gradients() {
    const int rows = block_.plan.head_rows;
    const int padded = round_up(rows, 16);
    const StreamedMatrix& heads = matrix(block_.plan.heads);
    const float factor = -2.0F * scale_.kl;
    each(chunk_.columns * latent(), [&](int i) {
      const int column = i / latent();
      const int d = i % latent();
      float* head = array(shared().heads) + column * head_stride() + d;
      float* global = global_row(heads.output_grad, chunk_.row + column, heads.rows) + d;
      float grad = array(shared().z_grad)[latent_at(column) + d];
      if (drops()) grad *= array(shared().keep)[i];
      const float mu = grad + factor * head[0];
      if (config_.variational) {
        const float sigma = expf(head[latent()]);
        const float noise = noisy() ? grad * array(shared().scaled)[i] : 0.0F;
        head[latent()] = global[latent()] = noise + factor * (sigma * sigma - 1.0F);
      }
      head[0] = global[0] = config_.variational ? mu : grad;
    });
    each(chunk_.columns * (padded - rows), [&](int i) {
      array(shared().heads)[i / (padded - rows) * head_stride() + rows + i % (padded - rows)] =
          0.0F;
    });
  }

  __device__ void head_bias_gradients() {
    each(block_.plan.head_rows, [&](int i) {
      float sum = 0.0F;
      for (int column = 0; column < chunk_.columns; ++column) {
        sum += array(shared().heads)[column * head_stride() + i];
      }
      block_.small_grad(block_.plan.small.head_bias)[i] += sum;
    });
  }

  const TrainBlock& block_;
  Stream& stream_;
  const Chunk& chunk_;
  const GinTrainConfig& config_;
  LossScale scale_;
  float kl_ = 0.0F;
};

}  // namespace a2v

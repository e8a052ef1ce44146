// SPDX-License-Identifier: Apache-2.0
// See cuda_plan.h.

#include "gin_train/cuda_plan.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"

namespace a2v {
namespace {

constexpr int kPhaseDoubles = 4;  // losses of a block: node, edge, kl, padding

template <class Int>
class Cursor {
 public:
  // The start of `count` floats, at a multiple of `alignment` floats.
  Int take(Int count, Int alignment = 4) {
    next_ = (next_ + alignment - 1) / alignment * alignment;
    const Int start = next_;
    next_ += count;
    return start;
  }
  Int size() const { return next_; }

 private:
  Int next_ = 0;
};

void check_config(const GinTrainParams& params) {
  const GinTrainConfig& c = params.config;
  A2V_CHECK(c.num_nodes >= 2 && c.num_nodes <= kMaxNodes, "num_nodes: ", c.num_nodes,
            " is outside 2..", kMaxNodes);
  A2V_CHECK(c.num_op_types >= 1 && c.num_op_types <= kMaxTrainOpTypes,
            "num_op_types: ", c.num_op_types, " is outside 1..", kMaxTrainOpTypes,
            ", what the CUDA kernel takes");
  A2V_CHECK(c.num_classes == c.num_op_types || c.num_classes == c.num_op_types + 1,
            "num_classes: ", c.num_classes, " is neither F nor F + 1 for F = ", c.num_op_types);
  A2V_CHECK(c.softmax || c.num_classes == c.num_op_types,
            "num_classes: a class for absent nodes needs the softmax loss");
  A2V_CHECK(c.hidden_dim >= 16 && c.hidden_dim <= kMaxTrainHidden && c.hidden_dim % 16 == 0,
            "hidden_dim: ", c.hidden_dim, " is no multiple of 16 in 16..", kMaxTrainHidden,
            ", what the CUDA kernel takes");
  A2V_CHECK(c.latent_dim >= 1 && c.latent_dim <= 64, "latent_dim: ", c.latent_dim,
            " is outside 1..64, what the CUDA kernel takes");
  A2V_CHECK(c.num_layers >= 1 && c.num_layers <= kMaxGinLayers, "num_layers: ", c.num_layers,
            " is outside 1..", kMaxGinLayers);
  A2V_CHECK(c.num_mlp_layers >= 1 && c.num_mlp_layers <= kMaxMlpLayers,
            "num_mlp_layers: ", c.num_mlp_layers, " is outside 1..", kMaxMlpLayers);
  A2V_CHECK(c.node_mixing >= 0 && c.node_mixing <= kMaxTrainMixing, "node_mixing: ", c.node_mixing,
            " is outside 0..", kMaxTrainMixing, ", what the CUDA kernel takes");
  A2V_CHECK(c.dropout >= 0.0F && c.dropout < 1.0F, "dropout: ", c.dropout, " is outside [0, 1)");
  A2V_CHECK(c.grad_clip > 0.0F, "grad_clip: ", c.grad_clip, " is not positive");
  A2V_CHECK(params.num_models >= 1, "parameters: no model");
  A2V_CHECK(params.batch_size >= 1, "batch_size: ", params.batch_size, " is below 1");
  A2V_CHECK(params.batch_size <= (std::int64_t{1} << 24), "batch_size: ", params.batch_size,
            " is above 2^24, what the CUDA kernel takes");
}

void plan_cells(GinTrainPlan& plan, const GinTrainParams& params, const TrainDevice& device) {
  plan.groups = std::min(params.num_models, device.blocks);
  plan.blocks = device.blocks / plan.groups;
  plan.threads = device.threads;
  plan.cells_per_block = static_cast<int>((params.batch_size + plan.blocks - 1) / plan.blocks);
  plan.op_bits = params.layout.op_bits();
  plan.edge_bits = params.layout.edge_bits();
  plan.words = params.layout.words();
  plan.flat = params.config.num_nodes * params.config.latent_dim;
  plan.head_rows = (params.config.variational ? 2 : 1) * params.config.latent_dim;
  plan.beta1_power = std::pow(0.9, static_cast<double>(params.first_step));
  plan.beta2_power = std::pow(0.999, static_cast<double>(params.first_step));
}

void add_matrix(GinTrainPlan& plan, int weight, int rows, int cols) {
  StreamedMatrix& matrix = plan.streamed[plan.num_streamed++];
  matrix = {};
  matrix.weight = weight;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.first_tile = plan.num_tiles;
  plan.num_tiles += matrix.tiles();
}

void plan_matrices(GinTrainPlan& plan, const GinTrainConfig& c, const GinParameterLayout& at) {
  plan.num_streamed = 0;
  plan.num_tiles = 0;
  for (int j = 1; j < c.num_norms(); ++j) {
    add_matrix(plan, at.linear[j / c.num_mlp_layers][j % c.num_mlp_layers].weight, c.hidden_dim,
               c.hidden_dim);
  }
  plan.heads = plan.num_streamed;
  add_matrix(plan, at.mu.weight, plan.head_rows, c.hidden_dim);
  if (c.node_mixing != 0) {
    add_matrix(plan, at.mixer_in.weight, c.node_mixing, plan.flat);
    add_matrix(plan, at.mixer_out.weight, plan.flat, c.node_mixing);
  }
}

void plan_small(GinTrainPlan& plan, const GinTrainConfig& c, const GinParameterLayout& at) {
  Cursor<int> cursor;
  plan.num_segments = 0;
  const auto add = [&](int offset, int count, int alignment) {
    const int first = cursor.take(count, alignment);
    if (offset >= 0 && count > 0) plan.segments[plan.num_segments++] = {first, count, offset};
    return first;
  };
  SmallLayout& small = plan.small;
  small.eps = add(at.eps, c.num_layers, 4);
  small.first = add(at.linear[0][0].weight, c.hidden_dim * c.num_op_types, 4);
  small.linear = cursor.take(0);
  for (int j = 0; j < c.num_norms(); ++j) {
    const int l = j / c.num_mlp_layers;
    const int k = j % c.num_mlp_layers;
    add(at.linear[l][k].bias, c.hidden_dim, 4);
    add(at.norm[l][k].weight, c.hidden_dim, 4);
    add(at.norm[l][k].bias, c.hidden_dim, 4);
  }
  small.head_bias = add(at.mu.bias, c.latent_dim, 4);
  if (c.variational) add(at.log_sigma.bias, c.latent_dim, 1);
  small.bilinear = add(at.bilinear, c.bilinear ? c.latent_dim * c.latent_dim : 0, 4);
  small.node_bias = add(at.node_bias, c.position_bias ? c.num_nodes * c.num_classes : 0, 4);
  small.edge_bias = add(at.edge_bias, c.position_bias ? c.num_nodes * c.num_nodes : 0, 4);
  small.op_weight = add(at.op_head.weight, c.num_classes * c.latent_dim, 4);
  small.op_bias = add(at.op_head.bias, c.num_classes, 4);
  small.mixer_in = add(at.mixer_in.bias, c.node_mixing, 4);
  small.mixer_out = add(at.mixer_out.bias, c.node_mixing != 0 ? plan.flat : 0, 4);
  small.gates = cursor.take(0);
  for (int l = 0; l < c.num_layers && c.gated; ++l) {
    add(at.gates[l], c.input_width(l), 4);
    add(at.gates[l] + c.input_width(l), c.input_width(l), 4);
  }
  small.size = round_up(cursor.size(), 4);
  plan.items = plan.num_tiles + (small.size + plan.threads - 1) / plan.threads;
  plan.stash_slots = (plan.items + plan.blocks - 1) / plan.blocks;
}

int saved_floats(const GinTrainPlan& plan, const GinTrainConfig& c) {
  const int tiles = c.hidden_dim / 16 * plan.chunks * plan.chunk_tiles;
  return (c.num_norms() + 1) * tiles * 128;
}

// Everything of a block but the saved states; returns the floats.
int plan_shared(GinTrainPlan& plan, const GinTrainConfig& c) {
  const int nodes = plan.cells_per_block * c.num_nodes;
  const int columns = plan.chunk_tiles * 8;
  const int cells = round_up(plan.chunk_cells, 8);
  const int warps = plan.threads / 32;
  Cursor<int> at;
  SharedLayout& s = plan.shared;
  s.ring = at.take(warps * plan.ring_slots * kPiece, 256);
  s.small = at.take(plan.small.size);
  s.small_grad = at.take(plan.small.size);
  s.norm = at.take(c.num_norms() * 2 * c.hidden_dim);
  s.totals = at.take(2 * c.hidden_dim);
  s.scratch = at.take(std::max(8 * plan.threads, 2 * c.hidden_dim));
  s.eps_parts = at.take(c.num_layers * (c.hidden_dim / 16));
  s.input_parts = at.take(c.num_op_types);
  s.moments = at.take(2 * 2 * plan.flat);
  s.losses = at.take(2 * 3);
  s.masks = at.take(nodes);
  s.labels = at.take(nodes / 4 + 1);
  s.input = at.take(columns * c.num_op_types);
  s.left = at.take(columns * operand_stride(c.hidden_dim));
  s.right = at.take(columns * operand_stride(c.hidden_dim));
  s.heads = at.take(columns * operand_stride(plan.head_rows));
  s.scaled = at.take(columns * c.latent_dim);
  s.keep = at.take(columns * c.latent_dim);
  s.z = at.take(cells * operand_stride(plan.flat));
  s.mixed = c.node_mixing == 0 ? s.z : at.take(cells * operand_stride(plan.flat));
  s.z_grad = at.take(cells * operand_stride(plan.flat));
  s.logits = at.take(columns * c.num_classes);
  s.edges = at.take(plan.chunk_cells * c.num_nodes * c.num_nodes);
  s.source = at.take(c.bilinear ? columns * c.latent_dim : 0);
  s.source_grad = at.take(c.bilinear ? columns * c.latent_dim : 0);
  s.hidden = at.take(c.node_mixing == 0 ? 0 : cells * operand_stride(c.node_mixing));
  s.hidden_grad = at.take(c.node_mixing == 0 ? 0 : cells * operand_stride(c.node_mixing));
  s.saved = at.take(0);
  s.size = at.size();
  return s.size;
}

struct Variant {
  int column_tiles;
  int ring_slots;
};

constexpr Variant kVariants[] = {{1, 12}, {2, 8}, {8, 8}};

// The largest chunk that fits, and the kernel with the fewest column tiles that takes it.
bool choose_chunk(GinTrainPlan& plan, const GinTrainConfig& c, int limit) {
  for (int cells = std::min(plan.cells_per_block, kMaxColumns / c.num_nodes); cells >= 1; --cells) {
    plan.chunk_cells = cells;
    plan.chunks = (plan.cells_per_block + cells - 1) / cells;
    plan.chunk_tiles = (cells * c.num_nodes + 7) / 8;
    for (const Variant& variant : kVariants) {
      plan.column_tiles = variant.column_tiles;
      plan.ring_slots = variant.ring_slots;
      if (variant.column_tiles >= plan.chunk_tiles && plan_shared(plan, c) <= limit) return true;
    }
  }
  return false;
}

void plan_shared_memory(GinTrainPlan& plan, const GinTrainParams& params, int limit) {
  A2V_CHECK(choose_chunk(plan, params.config, limit), "batch_size: ", params.batch_size,
            " cells of this width need more shared memory than the device has (", limit / 256,
            " KiB a block); lower batch_size or hidden_dim");
  SharedLayout& shared = plan.shared;
  const int saved = saved_floats(plan, params.config);
  plan.saved_in_shared = shared.size + saved <= limit;
  if (plan.saved_in_shared) shared.size += saved;
  const int ring = plan.threads / 32 * (plan.ring_slots * kPiece - kTileFloats);
  plan.stash_in_shared = plan.stash_slots * kTileFloats <= ring;
}

void plan_workspace(GinTrainPlan& plan, const GinTrainParams& params) {
  const GinTrainConfig& c = params.config;
  const std::int64_t batch = params.batch_size;
  const std::int64_t nodes = batch * c.num_nodes;
  const std::int64_t blocks = plan.blocks;
  Cursor<std::int64_t> at;
  WorkspaceLayout& w = plan.workspace;
  w.barriers = at.take(64, 64);
  w.fragments = at.take(0, 64);
  int fragment = 0;
  for (int i = 0; i < plan.num_streamed; ++i) {
    StreamedMatrix& matrix = plan.streamed[i];
    const int size = round_up(matrix.rows, 16) * round_up(matrix.cols, 16);
    matrix.forward = fragment;
    matrix.backward = fragment + size;
    fragment += 2 * size;
  }
  at.take(fragment, 64);
  w.small = at.take(plan.small.size);
  w.small_partials = at.take(blocks * plan.small.size);
  w.stats = at.take(2 * blocks * 2 * c.hidden_dim);
  w.square_sums = at.take(plan.items);
  w.losses = at.take(blocks * kPhaseDoubles * 2);
  w.moments = at.take(blocks * 2 * plan.flat * 2);
  w.activations = at.take(0, 32);
  for (int i = 0; i < plan.num_streamed; ++i) {
    StreamedMatrix& matrix = plan.streamed[i];
    const std::int64_t rows = i > plan.heads ? batch : nodes;
    matrix.input = at.take(rows * round_up(matrix.cols, kGradientTile), 32);
    matrix.output_grad = at.take(rows * round_up(matrix.rows, kGradientTile), 32);
  }
  w.saved = at.take(plan.saved_in_shared ? 0 : blocks * saved_floats(plan, c));
  w.stash = at.take(plan.stash_in_shared ? 0 : blocks * plan.stash_slots * kTileFloats);
  w.size = at.take(0, 64);
}

}  // namespace

GinTrainPlan make_gin_train_plan(const GinTrainParams& params, const TrainDevice& device) {
  check_config(params);
  A2V_CHECK(device.blocks >= 1, "device: no block of the kernel fits on a multiprocessor");
  GinTrainPlan plan{};
  plan_cells(plan, params, device);
  const GinParameterLayout at(params.config);
  plan.num_parameters = at.size;
  plan_matrices(plan, params.config, at);
  plan_small(plan, params.config, at);
  plan_shared_memory(plan, params, static_cast<int>(device.shared_bytes / sizeof(float)));
  plan_workspace(plan, params);
  return plan;
}

}  // namespace a2v

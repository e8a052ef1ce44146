// SPDX-License-Identifier: Apache-2.0
// See gin_encoder.h.

#include "gin_encode/gin_encoder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace a2v {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr int padded(int width) { return (width + 15) / 16 * 16; }

// Looking up a node's colour costs as much as about this many operations of a layer.
constexpr double kLookUpCost = 6000;
// Few cells repeat too little of each other.
constexpr std::int64_t kSharedCells = 512;
// Four times as many cells share a tenth more rows and lose it again to slower memory.
constexpr std::int64_t kMaxChunk = std::int64_t{1} << 14;
constexpr std::int64_t kMinChunk = std::int64_t{1} << 10;
// Of all threads' tables together, if no two nodes of a chunk had the same colour.
constexpr std::int64_t kTableBytes = std::int64_t{1} << 28;
// Rows of level 1 that are kept from chunk to chunk.
constexpr std::int64_t kFirstRows = std::int64_t{1} << 15;
// Rows of a group: both of its tables and a layer's weights fit the second-level cache.
constexpr int kGroupRows = 4 * kEncodeTile;
// Cells whose look-ups are in flight together.
constexpr std::int64_t kInFlight = 8;

}  // namespace

void FloatTable::Free::operator()(float* pointer) const { std::free(pointer); }

void FloatTable::reserve(std::int64_t count, bool keep) {
  if (count <= capacity_) {
    return;
  }
  if (!keep) {
    data_.reset();
  }
  // Some room, because the next chunk's table may be a little larger.
  const std::int64_t capacity = std::max(count + count / 4, keep ? 2 * capacity_ : 0);
  const std::size_t bytes = static_cast<std::size_t>(capacity) * sizeof(float);
  const std::size_t border = bytes < kHugePage ? kLine : kHugePage;
  const std::size_t size = (bytes + border - 1) / border * border;
  std::unique_ptr<float[], Free> data(static_cast<float*>(std::aligned_alloc(border, size)));
  if (data == nullptr) {
    throw std::bad_alloc();
  }
#if defined(__linux__)
  if (border == kHugePage) {
    madvise(data.get(), size, MADV_HUGEPAGE);  // a wish: first touches and look-ups get cheaper
  }
#endif
  if (keep && capacity_ > 0) {
    std::memcpy(data.get(), data_.get(), static_cast<std::size_t>(capacity_) * sizeof(float));
  }
  data_ = std::move(data);
  capacity_ = capacity;
}

GinEncoder::GinEncoder(const GinEncodeParams& params, const EncodeKernels& kernels, int num_threads)
    : params_(params), kernels_(kernels) {
  pack_weights();
  plan(num_threads);
}

void GinEncoder::pack_weights() {
  const GinEncodeConfig& c = params_.config;
  const GinEncodeWeights at(c);
  const auto even = [](int width) { return width + width % 2; };
  const std::int64_t hidden = padded(c.hidden_dim);
  const std::int64_t ops = padded(c.num_op_types);
  std::int64_t room = padded(c.latent_dim) * (even(c.hidden_dim) + 1);
  for (int l = 0; l < c.num_layers; ++l) {
    const int width = c.input_width(l);
    room += 2 * padded(width) + hidden * (even(width) + 1);
    room += (c.num_mlp_layers - 1) * hidden * (even(c.hidden_dim) + 1);
  }
  packed_.reserve(room);
  std::fill_n(packed_.data(), room, 0.0F);
  float* next = packed_.data();
  const auto take = [&](std::int64_t count) { return std::exchange(next, next + count); };
  const auto take_linear = [&](std::int64_t weight, std::int64_t bias, int out, int in) {
    float* packed = take(std::int64_t{padded(out)} * even(in));
    float* shift = take(padded(out));
    kernels_.pack(params_.weights + weight, out, in, packed);
    std::copy_n(params_.weights + bias, out, shift);
    linears_.push_back({.weight = packed, .bias = shift, .in = in, .out = out});
  };
  for (int l = 0; l < c.num_layers; ++l) {
    const int width = c.input_width(l);
    const float* gates = params_.weights + at.gates(l);
    directed_ = directed_ || std::any_of(gates, gates + 2 * width, [](float g) { return g != 1; });
    float* packed = take(2 * padded(width));
    std::copy_n(gates, width, packed);
    std::copy_n(gates + width, width, packed + padded(width));
    gates_.push_back(packed);
    for (int k = 0; k < c.num_mlp_layers; ++k) {
      take_linear(at.weight(l, k), at.bias(l, k), c.hidden_dim, k == 0 ? width : c.hidden_dim);
    }
  }
  take_linear(at.head_weight(), at.head_bias(), c.latent_dim, c.hidden_dim);
  one_hot_.reserve((c.num_op_types + 1) * ops);
  std::fill_n(one_hot_.data(), (c.num_op_types + 1) * ops, 0.0F);
  for (int f = 0; f < c.num_op_types; ++f) {
    one_hot_.data()[(f + 1) * ops + f] = 1.0F;
  }
}

void GinEncoder::plan(int num_threads) {
  const GinEncodeConfig& c = params_.config;
  const bool worth = params_.num_cells >= kSharedCells && row_cost(1) > 2 * kLookUpCost;
  const bool share = c.share == 1 || (c.share == -1 && worth);
  shared_levels_ = share ? c.num_layers : 1;
  if (!share) {
    chunk_cells_ = kMinChunk;
    return;
  }
  const std::int64_t row_bytes = 2 * padded(c.hidden_dim) * std::int64_t{sizeof(float)};
  const std::int64_t cells = kTableBytes / (num_threads * c.num_nodes * row_bytes);
  chunk_cells_ = std::clamp(cells, kMinChunk, kMaxChunk);
}

double GinEncoder::row_cost(int layer) const {
  const GinEncodeConfig& c = params_.config;
  const int width = (layer == 0 ? c.num_op_types : c.hidden_dim);
  return 2.0 * c.hidden_dim * (width + (c.num_mlp_layers - 1) * c.hidden_dim);
}

LayerJob GinEncoder::layer_job(int layer) const {
  const GinEncodeConfig& c = params_.config;
  LayerJob job{};
  job.linears = linears_.data() + layer * c.num_mlp_layers;
  job.num_linears = c.num_mlp_layers;
  job.scale = params_.weights[GinEncodeWeights(c).scale(layer)];
  job.gates = directed_ ? gates_[static_cast<std::size_t>(layer)] : nullptr;
  job.head = &linears_.back();
  job.key_size = key_size(c.num_nodes);
  return job;
}

EncodeWorker::EncodeWorker(const GinEncoder& encoder)
    : encoder_(encoder),
      num_nodes_(encoder.params().config.num_nodes),
      num_layers_(encoder.params().config.num_layers),
      shared_levels_(encoder.shared_levels()) {
  const GinEncodeConfig& c = encoder.params().config;
  for (int level = 0; level < shared_levels_; ++level) {
    colours_.emplace_back(num_nodes_);
  }
  const std::int64_t widest = padded(std::max(c.num_op_types, c.hidden_dim));
  scratch_.reserve(2 * kEncodeTile * widest);
}

void EncodeWorker::encode(std::int64_t first, std::int64_t last) {
  const CellLayout layout = encoder_.params().config.layout();
  const auto* codes = reinterpret_cast<const std::uint64_t*>(encoder_.params().codes);
  const std::int64_t chunks = (last - first + encoder_.chunk_cells() - 1) / encoder_.chunk_cells();
  for (std::int64_t i = 0; i < chunks; ++i) {
    chunk_first_ = first + (last - first) * i / chunks;
    const std::int64_t count = first + (last - first) * (i + 1) / chunks - chunk_first_;
    nodes_.resize(static_cast<std::size_t>(count * num_nodes_));
    present_.resize(static_cast<std::size_t>(count));
    for (std::int64_t c = 0; c < count; ++c) {
      first_colours(layout, codes + (chunk_first_ + c) * layout.words(), cell(c));
      std::uint16_t present = 0;
      for (int v = 0; v < num_nodes_; ++v) {
        present = static_cast<std::uint16_t>(present | (cell(c)[v].row != 0) << v);
      }
      present_[static_cast<std::size_t>(c)] = present;
    }
    encode_chunk(count);
  }
}

void EncodeWorker::encode_chunk(std::int64_t count) {
  const float* table = encoder_.one_hot();
  const int shared = shared_levels_;
  for (int layer = 0; layer < shared; ++layer) {
    table = share_layer(layer, count, table);
    write(layer, 0, count, table);
  }
  if (shared == num_layers_) {
    return;
  }
  const std::int64_t group = std::max(1, kGroupRows / num_nodes_);
  for (std::int64_t first = 0; first < count; first += group) {
    encode_group(shared, first, std::min(group, count - first), table);
  }
}

// Rows of level `layer` + 1 for the chunk's colours.
const float* EncodeWorker::share_layer(int layer, std::int64_t count, const float* in) {
  ColourTable& colours = colours_[static_cast<std::size_t>(layer)];
  if (layer > 0 || colours.size() > kFirstRows) {
    colours.clear();
  }
  const std::int64_t known = colours.size();
  look_up(colours, count);
  const std::int64_t rows = colours.size();
  FloatTable& table = layer == 0 ? first_ : shared_[layer % 2];
  table.reserve(rows * row_width(layer), known > 0);
  compute(layer, in, colours.keys() + known * key_size(num_nodes_), rows - known,
          table.data() + known * row_width(layer));
  const double repeated = 1.0 - static_cast<double>(rows) / static_cast<double>(count * num_nodes_);
  if (layer > 0 && encoder_.params().config.share == -1 &&
      repeated * encoder_.row_cost(layer) < kLookUpCost) {
    shared_levels_ = layer;  // in the chunks to come: later levels have even more colours
  }
  return table.data();
}

// The layers from `layer` on of a few cells, a row a node.
void EncodeWorker::encode_group(int layer, std::int64_t first, std::int64_t count,
                                const float* in) {
  const int keys = key_size(num_nodes_);
  const std::int64_t rows = count * num_nodes_;
  keys_.resize(static_cast<std::size_t>(rows * keys));
  for (; layer < num_layers_; ++layer) {
    for (std::int64_t c = 0; c < count; ++c) {
      ColourNode* nodes = cell(first + c);
      NextColours next;
      next_colours(nodes, num_nodes_, encoder_.directed(), &next);
      std::copy_n(next.keys, num_nodes_ * keys, keys_.data() + c * num_nodes_ * keys);
      for (int v = 0; v < num_nodes_; ++v) {
        nodes[v].hash = next.hash[v];
        nodes[v].row = static_cast<std::uint32_t>(c * num_nodes_ + v);
      }
    }
    FloatTable& table = group_[layer % 2];
    table.reserve(rows * row_width(layer));
    compute(layer, in, keys_.data(), rows, table.data());
    write(layer, first, count, table.data());
    in = table.data();
  }
}

// Gives the chunk's nodes their rows in `colours`.
void EncodeWorker::look_up(ColourTable& colours, std::int64_t count) {
  const int size = key_size(num_nodes_);
  NextColours next[kInFlight];
  for (std::int64_t first = 0; first < count; first += kInFlight) {
    const std::int64_t cells = std::min(kInFlight, count - first);
    for (std::int64_t c = 0; c < cells; ++c) {
      next_colours(cell(first + c), num_nodes_, encoder_.directed(), &next[c]);
      for (int v = 0; v < num_nodes_; ++v) {
        colours.prefetch(next[c].hash[v]);
      }
    }
    for (std::int64_t c = 0; c < cells; ++c) {
      ColourNode* nodes = cell(first + c);
      for (int v = 0; v < num_nodes_; ++v) {
        nodes[v].hash = next[c].hash[v];
        nodes[v].row = colours.row_of(next[c].hash[v], next[c].keys + v * size);
      }
    }
  }
}

bool EncodeWorker::gives_mu(int layer) const {
  return layer + 1 == num_layers_ && encoder_.params().output != GinEncodeOutput::kHidden;
}

int EncodeWorker::row_width(int layer) const {
  const GinEncodeConfig& c = encoder_.params().config;
  return padded(gives_mu(layer) ? c.latent_dim : c.hidden_dim);
}

void EncodeWorker::compute(int layer, const float* in, const std::uint32_t* keys,
                           std::int64_t num_rows, float* out) {
  LayerJob job = encoder_.layer_job(layer);
  job.in = in;
  job.keys = keys;
  job.num_rows = num_rows;
  (gives_mu(layer) ? job.mu : job.states) = out;
  job.scratch = scratch_.data();
  encoder_.kernels().layer(job);
}

// What the call asked for of the nodes' rows after `layer`, if anything.
void EncodeWorker::write(int layer, std::int64_t first, std::int64_t count, const float* table) {
  const GinEncodeParams& params = encoder_.params();
  const GinEncodeConfig& c = params.config;
  if (params.output == GinEncodeOutput::kNodes && gives_mu(layer)) {
    float* out = params.result + (chunk_first_ + first) * num_nodes_ * c.latent_dim;
    for (std::int64_t v = 0; v < count * num_nodes_; ++v) {
      const std::int64_t row = nodes_[static_cast<std::size_t>(first * num_nodes_ + v)].row;
      std::copy_n(table + row * row_width(layer), c.latent_dim, out + v * c.latent_dim);
    }
  } else if (params.output == GinEncodeOutput::kReadout && gives_mu(layer)) {
    write_readouts(first, count, table, c.latent_dim, c.latent_dim, 0);
  } else if (params.output == GinEncodeOutput::kHidden) {
    write_readouts(first, count, table, c.hidden_dim, c.num_layers * c.hidden_dim,
                   layer * c.hidden_dim);
  }
}

// Into columns column .. column + width - 1 of the result [B, stride].
void EncodeWorker::write_readouts(std::int64_t first, std::int64_t count, const float* table,
                                  int width, int stride, int column) {
  const bool sum = encoder_.params().config.sum_readout;
  for (std::int64_t c = first; c < first + count; ++c) {
    const ColourNode* nodes = cell(c);
    std::uint8_t order[kMaxNodes];
    order_nodes(nodes, num_nodes_, order);
    std::uint32_t rows[kMaxNodes];
    int used = 0;
    for (int i = 0; i < num_nodes_; ++i) {
      const int v = order[i];
      if (!sum || (present_[static_cast<std::size_t>(c)] >> v & 1) != 0) {
        rows[used++] = nodes[v].row;
      }
    }
    encoder_.kernels().readout(
        {.table = table,
         .width = width,
         .rows = rows,
         .count = used,
         .factor = sum ? 1.0F : 1.0F / static_cast<float>(num_nodes_),
         .out = encoder_.params().result + (chunk_first_ + c) * stride + column});
  }
}

}  // namespace a2v

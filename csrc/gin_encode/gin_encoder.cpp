// SPDX-License-Identifier: Apache-2.0
// See gin_encoder.h.

#include "gin_encode/gin_encoder.h"

#include <algorithm>
#include <cmath>
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
// Cells of a piece at least: about half a millisecond of work.
constexpr std::int64_t kGrain = 64;
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

namespace {

bool tells_directions(const GinEncodeParams& params) {
  const GinEncodeConfig& c = params.config;
  const GinEncodeWeights at(c);
  for (int l = 0; l < c.num_layers; ++l) {
    const float* gates = params.weights + at.gates(l);
    if (std::any_of(gates, gates + 2 * c.input_width(l), [](float g) { return g != 1; })) {
      return true;
    }
  }
  return false;
}

// Whether looking up what is equal can pay.
bool shares(const GinEncodeParams& params) {
  const GinEncodeConfig& c = params.config;
  const double cost = 2.0 * c.hidden_dim * c.num_mlp_layers * c.hidden_dim;
  const bool worth = params.num_cells >= kSharedCells && cost > 2 * kLookUpCost;
  return c.share == 1 || (c.share == -1 && worth);
}

}  // namespace

bool merges_cells(const GinEncodeParams& params) {
  return shares(params) && !tells_directions(params);
}

void copy_results(const GinEncodeParams& params, const EqualCells& cells, std::int64_t first,
                  std::int64_t last) {
  const GinEncodeConfig& c = params.config;
  const bool nodes = params.output == GinEncodeOutput::kNodes;
  const std::int64_t width = params.output == GinEncodeOutput::kHidden
                                 ? std::int64_t{c.num_layers} * c.hidden_dim
                                 : c.latent_dim;
  const int rows = nodes ? c.num_nodes : 1;
  std::uint8_t image[kMaxNodes] = {};
  for (std::int64_t b = first; b < last; ++b) {
    const std::int64_t original = cells.original(b);
    if (original == b) {
      continue;
    }
    if (nodes) {
      cells.match(b, image);
    }
    for (int v = 0; v < rows; ++v) {
      std::copy_n(params.result + (original * rows + image[v]) * width, width,
                  params.result + (b * rows + v) * width);
    }
  }
}

GinEncoder::GinEncoder(const GinEncodeParams& params, const EncodeKernels& kernels, int num_threads,
                       const std::vector<std::int64_t>* cells)
    : params_(params), kernels_(kernels), cells_(cells), directed_(tells_directions(params)) {
  pack_weights();
  pack_inputs();
  plan(num_threads);
}

std::int64_t GinEncoder::num_cells() const {
  return cells_ == nullptr ? params_.num_cells : static_cast<std::int64_t>(cells_->size());
}

void GinEncoder::pack_weights() {
  const GinEncodeConfig& c = params_.config;
  const GinEncodeWeights at(c);
  const auto even = [](int width) { return width + width % 2; };
  const std::int64_t hidden = padded(c.hidden_dim);
  std::int64_t room = padded(c.latent_dim) * (even(c.hidden_dim) + 1) + hidden;
  for (int l = 0; l < c.num_layers; ++l) {
    const int width = c.input_width(l);
    room += 2 * padded(width) + hidden * (even(width) + 1);
    room += (c.num_mlp_layers - 1) * hidden * (even(c.hidden_dim) + 1);
  }
  packed_.reserve(room);
  std::fill_n(packed_.data(), room, 0.0F);
  float* next = packed_.data();
  const auto take = [&](std::int64_t count) { return std::exchange(next, next + count); };
  const float* zeros = take(hidden);
  const auto take_linear = [&](std::int64_t weight, std::int64_t bias, int out, int in) {
    float* packed = take(std::int64_t{padded(out)} * even(in));
    float* shift = take(padded(out));
    kernels_.pack(params_.weights + weight, out, in, packed);
    std::copy_n(params_.weights + bias, out, shift);
    const float* from = params_.weights + weight;
    const bool finite = std::all_of(from, from + std::int64_t{out} * in,
                                    [](float value) { return std::isfinite(value); });
    linears_.push_back(
        {.weight = packed, .bias = shift, .in = in, .out = out, .skips_zeros = finite});
  };
  for (int l = 0; l < c.num_layers; ++l) {
    const int width = c.input_width(l);
    const float* gates = params_.weights + at.gates(l);
    float* packed = take(2 * padded(width));
    std::copy_n(gates, width, packed);
    std::copy_n(gates + width, width, packed + padded(width));
    gates_.push_back(packed);
    for (int k = 0; k < c.num_mlp_layers; ++k) {
      take_linear(at.weight(l, k), at.bias(l, k), c.hidden_dim, k == 0 ? width : c.hidden_dim);
      if (k == 0) {
        linears_.back().skips_zeros &= !directed_;
        entries_.push_back(directed_ ? nullptr : std::exchange(linears_.back().bias, zeros));
      }
    }
  }
  take_linear(at.head_weight(), at.head_bias(), c.latent_dim, c.hidden_dim);
  linears_.back().skips_zeros = false;  // a panel or two are too few sums at a time
}

void GinEncoder::pack_inputs() {
  const GinEncodeConfig& c = params_.config;
  const std::int64_t width = padded(directed_ ? c.num_op_types : c.hidden_dim);
  inputs_.reserve((c.num_op_types + 1) * width);
  std::fill_n(inputs_.data(), (c.num_op_types + 1) * width, 0.0F);
  const float* weight = params_.weights + GinEncodeWeights(c).weight(0, 0);  // [H, F]
  for (int f = 0; f < c.num_op_types; ++f) {
    float* row = inputs_.data() + (f + 1) * width;
    if (directed_) {
      row[f] = 1.0F;
    }
    for (int h = 0; h < c.hidden_dim && !directed_; ++h) {
      row[h] = weight[h * c.num_op_types + f];
    }
  }
}

void GinEncoder::plan(int num_threads) {
  const GinEncodeConfig& c = params_.config;
  const bool share = shares(params_);
  shared_levels_ = share ? c.num_layers : 1;
  chunk_cells_ = kMinChunk;
  if (share) {
    const std::int64_t row_bytes = 2 * padded(c.hidden_dim) * std::int64_t{sizeof(float)};
    const std::int64_t cells = kTableBytes / (num_threads * c.num_nodes * row_bytes);
    chunk_cells_ = std::clamp(cells, kMinChunk, kMaxChunk);
  }
  const std::int64_t chunks = (num_cells() + chunk_cells_ - 1) / chunk_cells_;
  const std::int64_t even = (chunks + num_threads - 1) / num_threads * num_threads;
  pieces_ = std::min(even, std::max(std::int64_t{1}, num_cells() / kGrain));
}

double GinEncoder::row_cost(int layer) const {
  const GinEncodeConfig& c = params_.config;
  const int after = layer + 1 < c.num_layers ? c.hidden_dim : c.latent_dim;
  const int first = directed_ ? c.input_width(layer) : after;
  return 2.0 * c.hidden_dim * (first + (c.num_mlp_layers - 1) * c.hidden_dim);
}

LayerJob GinEncoder::layer_job(int layer) const {
  const GinEncodeConfig& c = params_.config;
  const int done = directed_ ? 0 : 1;  // linears of a layer that its input has been through
  LayerJob job{};
  job.scale = params_.weights[GinEncodeWeights(c).scale(layer)];
  job.gates = directed_ ? gates_[static_cast<std::size_t>(layer)] : nullptr;
  job.entry = entries_[static_cast<std::size_t>(layer)];
  job.width = directed_ ? c.input_width(layer) : c.hidden_dim;
  job.linears = linears_.data() + layer * c.num_mlp_layers + done;
  job.num_linears = c.num_mlp_layers - done;
  job.hidden = c.hidden_dim;
  job.out = linears_.data() + (layer + 1) * c.num_mlp_layers;
  job.key_size = key_size(c.num_nodes);
  return job;
}

EncodeWorker::EncodeWorker(const GinEncoder& encoder)
    : encoder_(encoder),
      num_nodes_(encoder.params().config.num_nodes),
      num_layers_(encoder.params().config.num_layers),
      shared_levels_(encoder.shared_levels()),
      group_colours_(num_nodes_) {
  const GinEncodeConfig& c = encoder.params().config;
  for (int level = 0; level < shared_levels_; ++level) {
    colours_.emplace_back(num_nodes_);
  }
  const std::int64_t widest = padded(std::max(c.num_op_types, c.hidden_dim));
  scratch_.reserve(encode_scratch(widest));
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
      first_colours(layout, codes + encoder_.cell(chunk_first_ + c) * layout.words(), cell(c));
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
  const float* table = encoder_.inputs();
  const int shared = shared_levels_;
  for (int layer = 0; layer < shared; ++layer) {
    const Level& level = share_layer(layer, count, table);
    write(layer, 0, count, level);
    table = carried(level);
  }
  if (shared == num_layers_) {
    return;
  }
  const std::int64_t group = std::max(1, kGroupRows / num_nodes_);
  for (std::int64_t first = 0; first < count; first += group) {
    encode_group(shared, first, std::min(group, count - first), table);
  }
}

// A row for each colour that the chunk has after `layer`.
const EncodeWorker::Level& EncodeWorker::share_layer(int layer, std::int64_t count,
                                                     const float* in) {
  ColourTable& colours = colours_[static_cast<std::size_t>(layer)];
  if (layer > 0 || colours.size() > kFirstRows) {
    colours.clear();
  }
  const std::int64_t known = colours.size();
  look_up(colours, 0, count);
  const std::int64_t rows = colours.size();
  Level& level = layer == 0 ? first_ : shared_[layer % 2];
  compute(layer, in, colours.keys(), known, rows, level);
  const double repeated = 1.0 - static_cast<double>(rows) / static_cast<double>(count * num_nodes_);
  if (layer > 0 && encoder_.params().config.share == -1 &&
      repeated * encoder_.row_cost(layer) < kLookUpCost) {
    shared_levels_ = layer;  // in the chunks to come: later levels have even more colours
  }
  return level;
}

// The layers from `layer` on of a few cells, a row for each colour that they have.
void EncodeWorker::encode_group(int layer, std::int64_t first, std::int64_t count,
                                const float* in) {
  for (; layer < num_layers_; ++layer) {
    group_colours_.clear();
    look_up(group_colours_, first, count);
    Level& level = group_[layer % 2];
    compute(layer, in, group_colours_.keys(), 0, group_colours_.size(), level);
    write(layer, first, count, level);
    in = carried(level);
  }
}

// Gives the nodes of cells first .. first + count - 1 their rows in `colours`.
void EncodeWorker::look_up(ColourTable& colours, std::int64_t first, std::int64_t count) {
  const int size = key_size(num_nodes_);
  NextColours next[kInFlight];
  const std::int64_t end = first + count;
  for (; first < end; first += kInFlight) {
    const std::int64_t cells = std::min(kInFlight, end - first);
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

int EncodeWorker::product_width(int layer) const {
  const GinEncodeConfig& c = encoder_.params().config;
  return padded(layer + 1 == num_layers_ ? c.latent_dim : c.hidden_dim);
}

void EncodeWorker::compute(int layer, const float* in, const std::uint32_t* keys,
                           std::int64_t known, std::int64_t rows, Level& level) {
  const bool last = layer + 1 == num_layers_;
  const bool hidden = encoder_.params().output == GinEncodeOutput::kHidden;
  LayerJob job = encoder_.layer_job(layer);
  job.in = in;
  job.keys = keys + known * key_size(num_nodes_);
  job.num_rows = rows - known;
  if (hidden || (encoder_.directed() && !last)) {
    const int width = padded(job.hidden);
    level.states.reserve(rows * width, known > 0);
    job.states = level.states.data() + known * width;
  }
  if (gives_mu(layer) || (!encoder_.directed() && !last)) {
    level.product.reserve(rows * product_width(layer), known > 0);
    job.product = level.product.data() + known * product_width(layer);
  }
  job.scratch = scratch_.data();
  encoder_.kernels().layer(job);
}

// What the call asked for of the nodes' rows after `layer`, if anything.
void EncodeWorker::write(int layer, std::int64_t first, std::int64_t count, const Level& level) {
  const GinEncodeParams& params = encoder_.params();
  const GinEncodeConfig& c = params.config;
  if (params.output == GinEncodeOutput::kNodes && gives_mu(layer)) {
    for (std::int64_t i = first; i < first + count; ++i) {
      float* out =
          params.result + encoder_.cell(chunk_first_ + i) * num_nodes_ * std::int64_t{c.latent_dim};
      for (int v = 0; v < num_nodes_; ++v) {
        const float* mu =
            level.product.data() + std::int64_t{cell(i)[v].row} * product_width(layer);
        std::copy_n(mu, c.latent_dim, out + v * c.latent_dim);
      }
    }
  } else if (params.output == GinEncodeOutput::kReadout && gives_mu(layer)) {
    write_readouts(first, count, level.product.data(), c.latent_dim, c.latent_dim, 0);
  } else if (params.output == GinEncodeOutput::kHidden) {
    write_readouts(first, count, level.states.data(), c.hidden_dim, c.num_layers * c.hidden_dim,
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
         .out = encoder_.params().result + encoder_.cell(chunk_first_ + c) * stride + column});
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The CPU engine of gin_encode: which rows there are to compute. The arithmetic is in the kernels
// (encode_rows.h).
//
// A node's state after layer l depends on its colour alone (node_colours.h), so the engine gives
// every colour of a chunk of cells one row, level by level, for as long as there are enough fewer
// colours than nodes to pay for looking them up; from there on every node is a row of its own, a
// few cells at a time, in the second-level cache. The first layer always goes by colour, over all
// chunks of a thread: NAS-Bench-101 has 496 of them. Results are the same to the bit either way.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cells/node_colours.h"
#include "gin_encode/encode_rows.h"
#include "gin_encode/gin_encode.h"

namespace a2v {

// Uninitialised floats that start at a cache line.
class FloatTable {
 public:
  // Room for `count` floats. The content stays if `keep`, else it is undefined.
  void reserve(std::int64_t count, bool keep = false);
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* pointer) const;
  };
  std::unique_ptr<float[], Free> data_;
  std::int64_t capacity_ = 0;
};

// The weights of one call in the form that kernels read, and how its work is cut.
class GinEncoder {
 public:
  GinEncoder(const GinEncodeParams& params, const EncodeKernels& kernels, int num_threads);

  const GinEncodeParams& params() const { return params_; }
  const EncodeKernels& kernels() const { return kernels_; }
  // Whether successors and predecessors weigh differently.
  bool directed() const { return directed_; }
  // Levels whose colours are looked up at first, 1 .. L.
  int shared_levels() const { return shared_levels_; }
  // Cells whose colours share a table.
  std::int64_t chunk_cells() const { return chunk_cells_; }
  // Floating-point operations of a row of `layer`.
  double row_cost(int layer) const;
  // A job of `layer`, 0 .. L-1, with everything set that is the same for all rows.
  LayerJob layer_job(int layer) const;
  // States before the first layer: row 0 zero (an absent node), row 1 + f one-hot.
  const float* one_hot() const { return one_hot_.data(); }

 private:
  void pack_weights();
  void plan(int num_threads);

  GinEncodeParams params_;
  const EncodeKernels& kernels_;
  bool directed_ = false;
  int shared_levels_ = 1;
  std::int64_t chunk_cells_ = 0;
  FloatTable one_hot_;
  FloatTable packed_;
  std::vector<EncodeLinear> linears_;  // [L * K + 1], the head last
  std::vector<const float*> gates_;    // [L]
};

// One thread's share of a call. Cells must be well formed.
class EncodeWorker {
 public:
  explicit EncodeWorker(const GinEncoder& encoder);

  // Encodes cells first .. last-1 of the call.
  void encode(std::int64_t first, std::int64_t last);

 private:
  // `first` and `count` are cells, counted from the start of the chunk.
  void encode_chunk(std::int64_t count);
  const float* share_layer(int layer, std::int64_t count, const float* in);
  void encode_group(int layer, std::int64_t first, std::int64_t count, const float* in);
  void look_up(ColourTable& colours, std::int64_t count);
  void compute(int layer, const float* in, const std::uint32_t* keys, std::int64_t num_rows,
               float* out);
  void write(int layer, std::int64_t first, std::int64_t count, const float* table);
  void write_readouts(std::int64_t first, std::int64_t count, const float* table, int width,
                      int stride, int column);
  bool gives_mu(int layer) const;
  int row_width(int layer) const;
  ColourNode* cell(std::int64_t index) { return nodes_.data() + index * num_nodes_; }

  const GinEncoder& encoder_;
  const int num_nodes_;
  const int num_layers_;
  int shared_levels_;
  std::int64_t chunk_first_ = 0;        // of the call's cells
  std::vector<ColourNode> nodes_;       // [chunk, N]
  std::vector<std::uint16_t> present_;  // [chunk], a bit a node
  std::vector<ColourTable> colours_;    // of levels 1 .. L
  std::vector<std::uint32_t> keys_;     // of a group's nodes
  FloatTable first_;                    // rows of level 1, kept over chunks
  FloatTable shared_[2];                // rows of the levels that follow, in turn
  FloatTable group_[2];                 // the same of a group
  FloatTable scratch_;
};

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The CPU engine of gin_encode: which rows there are to compute. The arithmetic is in the kernels
// (encode_rows.h).
//
// A node's state after layer l depends on its colour alone (node_colours.h), so equal work is done
// once, in two ways. Cells that a symmetric encoder cannot tell apart are encoded once a call
// (equal_cells.h). Of the others, every colour of a chunk of cells is given one row, level by
// level, for as long as there are enough fewer colours than nodes to pay for looking them up; from
// there on every colour of a few cells, which fit the second-level cache together. The first layer
// always goes by colour, over all chunks of a thread. Results are the same to the bit in any case.
//
// What there is to gain (all 423,624 cells of NAS-Bench-101 at once, symmetric, colours counted):
// 2,965,368 nodes have 496, 450,854, 1,688,592 and 1,818,333 colours after 1 to 4 layers, and
// 270,793 cells differ. Rows of levels 2, 3, 4 and the operations they cost:
//
//   every node a row                                    2.97, 2.97, 2.97 million   703 GFLOP
//   colours of chunks of 16,384 cells                   1.01, 2.42, 2.52           390
//   colours of the whole space (1.8 GB of tables)       0.45, 1.69, 1.82           267
//   .. and first linears before the sums                                           207
//   cells once, then level 2 by colours of a chunk,
//   first linears before the sums                       0.74, 1.90, 1.90           243
//   .. and levels 3 and 4 by colours of twenty cells    0.74, 1.79, 1.83           233
//
// Of those operations a quarter to a half multiplies zeros and is left out (sparse_rows.h): half of
// the states are zero after a ReLU, in trained encoders of NAS-Bench-101 and DARTS 50 to 84 %.
// Profile (2026-11-24, EPYC Zen 3, AVX2, one thread): 53 % products; 25 % what stands around them
// in a tile (neighbours' rows 8, lists of columns 4, the head 2, stores); 14 % look-ups, orders and
// keys of colours; 7 % finding equal cells.
//
// A gated encoder tells all cells apart and has 0.90, 2.70 and 2.87 million colours: there is
// little to share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cells/node_colours.h"
#include "gin_encode/encode_rows.h"
#include "gin_encode/equal_cells.h"
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
  // `cells`: those to encode, ascending; null for all of the call's.
  GinEncoder(const GinEncodeParams& params, const EncodeKernels& kernels, int num_threads,
             const std::vector<std::int64_t>* cells = nullptr);

  const GinEncodeParams& params() const { return params_; }
  const EncodeKernels& kernels() const { return kernels_; }
  std::int64_t num_cells() const;
  // Number in the call of the `index`-th cell to encode.
  std::int64_t cell(std::int64_t index) const {
    return cells_ == nullptr ? index : (*cells_)[static_cast<std::size_t>(index)];
  }
  // Whether successors and predecessors weigh differently.
  bool directed() const { return directed_; }
  // Levels whose colours are looked up at first, 1 .. L.
  int shared_levels() const { return shared_levels_; }
  // Cells whose colours share a table, at most.
  std::int64_t chunk_cells() const { return chunk_cells_; }
  // Pieces of the work for threads to take in turn; piece i starts at cell piece(i).
  std::int64_t num_pieces() const { return pieces_; }
  std::int64_t piece(std::int64_t i) const { return num_cells() * i / pieces_; }
  // Floating-point operations of a row of `layer`.
  double row_cost(int layer) const;
  // A job of `layer`, 0 .. L-1, with everything set that is the same for all rows.
  LayerJob layer_job(int layer) const;
  // What the first layer reads: row 0 of an absent node, row 1 + f of operation f; one-hot, or
  // after the first linear.
  const float* inputs() const { return inputs_.data(); }

 private:
  void pack_weights();
  void pack_inputs();
  void plan(int num_threads);

  GinEncodeParams params_;
  const EncodeKernels& kernels_;
  const std::vector<std::int64_t>* cells_;
  bool directed_ = false;
  int shared_levels_ = 1;
  std::int64_t chunk_cells_ = 0;
  std::int64_t pieces_ = 0;
  FloatTable inputs_;
  FloatTable packed_;
  std::vector<EncodeLinear> linears_;  // [L * K + 1], the head last
  std::vector<const float*> gates_;    // [L]
  std::vector<const float*> entries_;  // [L]
};

// Whether `EqualCells` pay for an encoder of these sizes and weights.
bool merges_cells(const GinEncodeParams& params);

// Gives cells first .. last-1 of the call that were not encoded the results of their originals.
void copy_results(const GinEncodeParams& params, const EqualCells& cells, std::int64_t first,
                  std::int64_t last);

// One thread's share of a call. Cells must be well formed.
class EncodeWorker {
 public:
  explicit EncodeWorker(const GinEncoder& encoder);

  // Encodes cells first .. last-1 of those that the encoder has.
  void encode(std::int64_t first, std::int64_t last);

 private:
  // Rows of a level: states where someone asks for them, and the next linear of them.
  struct Level {
    FloatTable states;
    FloatTable product;
  };

  // `first` and `count` are cells, counted from the start of the chunk.
  void encode_chunk(std::int64_t count);
  const Level& share_layer(int layer, std::int64_t count, const float* in);
  void encode_group(int layer, std::int64_t first, std::int64_t count, const float* in);
  void look_up(ColourTable& colours, std::int64_t first, std::int64_t count);
  // Rows known .. rows-1 of a level.
  void compute(int layer, const float* in, const std::uint32_t* keys, std::int64_t known,
               std::int64_t rows, Level& level);
  void write(int layer, std::int64_t first, std::int64_t count, const Level& level);
  void write_readouts(std::int64_t first, std::int64_t count, const float* table, int width,
                      int stride, int column);
  bool gives_mu(int layer) const;
  int product_width(int layer) const;
  const float* carried(const Level& level) const {
    return encoder_.directed() ? level.states.data() : level.product.data();
  }
  ColourNode* cell(std::int64_t index) { return nodes_.data() + index * num_nodes_; }

  const GinEncoder& encoder_;
  const int num_nodes_;
  const int num_layers_;
  int shared_levels_;
  std::int64_t chunk_first_ = 0;        // of the encoder's cells
  std::vector<ColourNode> nodes_;       // [chunk, N]
  std::vector<std::uint16_t> present_;  // [chunk], a bit a node
  std::vector<ColourTable> colours_;    // of levels 1 .. L
  ColourTable group_colours_;           // of one level of a group
  Level first_;                         // of the first layer, kept over chunks
  Level shared_[2];                     // of the layers that follow, in turn
  Level group_[2];                      // the same of a group
  FloatTable scratch_;
};

}  // namespace a2v

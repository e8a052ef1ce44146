// SPDX-License-Identifier: Apache-2.0
// Equal cells: those that a symmetric encoder of L layers cannot tell apart, because their nodes
// have the same colours (node_colours.h) after L rounds. They have equal embeddings, to the bit. Of
// the 423,624 cells of NAS-Bench-101, 270,793 differ.
//
// Found in three passes, the first and the last on any number of threads: a signature of 64 bits a
// cell; for each cell the first one of its signature; then both are compared exactly, so that two
// different cells of one signature cost a missed saving and no wrong result. Half a microsecond a
// cell, where encoding one takes ten.
#pragma once

#include <cstdint>
#include <vector>

#include "cells/packed_cell.h"

namespace a2v {

class EqualCells {
 public:
  // codes [B, W] of well-formed cells must outlive the object.
  EqualCells(const CellLayout& layout, int rounds, const std::uint64_t* codes,
             std::int64_t num_cells);

  void sign(std::int64_t first, std::int64_t last);     // cells first .. last-1
  void link();                                          // after all are signed
  void confirm(std::int64_t first, std::int64_t last);  // after that
  void collect();                                       // after all are confirmed

  // Cells of which none before is an equal, ascending.
  const std::vector<std::int64_t>& originals() const { return originals_; }
  // The cell of `originals` that equals cell b.
  std::int64_t original(std::int64_t b) const { return original_[static_cast<std::size_t>(b)]; }
  // For each node of cell b a node of its original with the same colour; no node is named twice.
  void match(std::int64_t b, std::uint8_t* image) const;

 private:
  const std::uint64_t* words(std::int64_t b) const { return codes_ + b * layout_.words(); }

  CellLayout layout_;
  int rounds_;
  const std::uint64_t* codes_;
  std::vector<std::uint64_t> signatures_;
  std::vector<std::int64_t> original_;
  std::vector<std::int64_t> originals_;
};

// Whether the nodes of a and b have the same colours after `rounds` rounds, exactly; if so, `image`
// as in EqualCells::match.
bool match_nodes(const CellLayout& layout, const std::uint64_t* a, const std::uint64_t* b,
                 int rounds, std::uint8_t* image);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// Weisfeiler-Lehman histograms: how often each colour occurs among the nodes of a cell.
//
// A node's colour is its label at first, and (own colour, colours of its predecessors, colours of
// its successors) of the round before after that; colours of all rounds are counted side by side.
// Isomorphic cells have equal histograms. Colours get their numbers from tables of whole keys
// (node_colours.h), so two of them never share one, whatever their hashes do.
//
// Absent nodes are not counted. Source: Shervashidze et al., "Weisfeiler-Lehman Graph Kernels",
// JMLR 2011, with directed neighbourhoods.

#pragma once

#include <cstdint>
#include <vector>

#include "packed_cell.h"

namespace a2v {

// Rows of a sparse matrix [B, C]: entries starts[b] .. starts[b + 1] - 1 belong to cell b.
struct WlHistograms {
  std::vector<std::int64_t> starts;   // [B + 1]
  std::vector<std::int32_t> colours;  // ascending within a cell
  std::vector<std::int32_t> counts;
  std::int64_t num_colours = 0;  // C; colours of one round follow those of the round before
};

// `codes` holds `count` well-formed cells; depth: rounds, 0 counts labels alone. Colours are
// numbered in the order in which the cells show them.
WlHistograms wl_histograms(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                           int depth);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// Random cells of a general space, and random single edits of given ones.

#pragma once

#include <cstdint>

#include "packed_cell.h"
#include "rules.h"

namespace a2v {

// Uniform over the labelled encodings that satisfy the rules: draws from all encodings with the
// right labels and at most max_edges edges, exactly uniform up to the rounding of the size weights,
// and keeps drawing until find_fault is silent. Cell i is that of the stream (seed, items[i],
// round). Returns -1, or the index of a cell for which max_attempts draws were not enough.
std::int64_t sample_cells(const CellLayout& layout, const SpaceRules& rules, std::uint64_t seed,
                          const std::int64_t* items, std::int64_t count, std::int64_t round,
                          std::int64_t max_attempts, int threads, std::uint64_t* codes);

// The single edits of a cell, the vocabulary of mutation:
//   an edge added or removed; an inner node's operation changed; and, where the size may vary, an
//   edge split by a new inner node, or an inner node taken out with its predecessors joined to its
//   successors.
// All edits of cell i are put in the random order of the stream (seed, i, 0); from position
// `start[i]` of that order on, the first whose result has no fault (or, with `checked` false,
// simply the first) is written, and `start[i]` becomes the position after it. -1 means that none is
// left; the parent is then copied.
void edit_cells(const CellLayout& layout, const SpaceRules& rules, const std::uint64_t* codes,
                const std::int64_t* items, std::int64_t count, std::uint64_t seed, bool checked,
                int threads, std::int64_t* start, std::uint64_t* out);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// Canonical form: isomorphic cells share one code, others never do.
//
// Isomorphism is that of labelled directed acyclic graphs on all N nodes: an absent node is a node
// with a label of its own, so cells with edges at absent nodes (a decoder can write such things)
// are told apart too, and nothing is dropped.
//
// The representative is the topological order that is smallest position by position in
//   (label rank, predecessor mask, colour)
// where the rank is the operation index and absent ranks last, the mask is over earlier positions,
// and the colour, consulted only where the first two tie, is an isomorphism-invariant hash made by
// colour refinement. What ties even then is tried in turn; see canonical.cpp for the pruning.

#pragma once

#include <cstdint>

#include "packed_cell.h"

namespace a2v {

// The canonical representative of `cell`.
Cell canonical_cell(const CellLayout& layout, const Cell& cell);

// B cells on up to `threads` threads (0 = all cores); same result for any number.
void canonical_codes(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                     int threads, std::uint64_t* out);

}  // namespace a2v

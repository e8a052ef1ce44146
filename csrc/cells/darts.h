// SPDX-License-Identifier: Apache-2.0
//
// DARTS cells: the genotype behind a packed cell and back, and what is wrong with a cell that has
// none.
//
// A DARTS cell is packed as 11 nodes: the two cell inputs (0, 1), eight operations (2..9, two for
// each inner node of the genotype), the output (10). An operation reads a cell input, or an earlier
// inner node through edges from BOTH of that node's operations. Every operation feeds the output.
//
// The genotype is eight (input, operation) byte pairs, `DartsEdges`: input 0..4 as in DARTS (0, 1
// the cell inputs, 2.. the inner nodes), operation 0..7 in the order none, max_pool_3x3,
// avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5. Node labels
// of the packed cell are 0 and 1 for the cell inputs, operation + 2, and 10 for the output.

#pragma once

#include <array>
#include <cstdint>

#include "packed_cell.h"

namespace a2v {

inline constexpr CellLayout kDartsLayout{11, 11};
inline constexpr int kDartsEdges = 8;
inline constexpr int kDartsOps = 8;

// edges[2e] is the input of operation e, edges[2e + 1] the operation.
using DartsEdges = std::array<std::uint8_t, 2 * kDartsEdges>;

// First fault found, in this order. The Python space words them; keep the two in step.
enum class DartsFault : std::uint8_t {
  kNone = 0,
  kInputLabels,  // nodes 0 and 1 are not labelled c_k-2 and c_k-1
  kOutputLabel,  // the last node is not labelled output
  kOpLabels,     // one of nodes 2..9 does not carry an operation
  kInputEdge,    // edge between the two cell inputs
  kNoSource,     // an operation that reads nothing
  kSources,      // an operation that reads something else than one input or one whole earlier node
  kSameInput,    // both operations of a node read the same input
  kOutputEdges,  // the output is not fed by all eight operations and them alone
};

// Edges must be a genotype: inputs below their node, operations below kDartsOps.
void pack_darts(const DartsEdges& edges, std::uint64_t* words);

// Strict rule: kNone exactly when pack_darts of some genotype gives `words`, which is then in
// `edges`. `words` must be well formed. `edges` is written in part when there is a fault.
DartsFault unpack_darts(const std::uint64_t* words, DartsEdges& edges);

// The check of the released arch2vec code: labels, and for each operation at least one edge from a
// node before its own block. Its other clauses look below the diagonal and can never fail.
DartsFault released_darts_fault(const std::uint64_t* words);

// The names the released code gives to `count` valid cells (graph_hash.h), 16 bytes each.
void darts_hashes(const std::uint64_t* codes, std::int64_t count, int threads,
                  std::uint8_t* digests);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// What a cell of a general space must look like, and which rule a given cell breaks first.
//
// Operation types are ordered: the inputs (one node each, at the front, nothing flows in), the
// inner operations, the output if the space has one (a single node, the last present one, nothing
// flows out).

#pragma once

#include <cstdint>

#include "packed_cell.h"

namespace a2v {

struct SpaceRules {
  int num_inputs = 0;           // operation types 0..num_inputs-1
  bool has_output = false;      // operation type F-1
  bool variable_size = false;   // fewer than N nodes allowed
  bool allow_dangling = false;  // nodes without predecessor or successor allowed
  int max_edges = 0;

  constexpr int fixed_nodes() const { return num_inputs + (has_output ? 1 : 0); }
  constexpr int num_inner_ops(const CellLayout& layout) const {
    return layout.num_op_types - fixed_nodes();
  }
  // Smallest number of present nodes of any cell: inputs, and the output or one inner node.
  constexpr int min_nodes(const CellLayout& layout) const {
    return variable_size ? num_inputs + 1 : layout.num_nodes;
  }
  constexpr bool needs_predecessors() const { return num_inputs > 0 && !allow_dangling; }
  constexpr bool needs_successors() const { return has_output && !allow_dangling; }
};

// In the order in which they are looked for. The Python space words them; keep the two in step.
enum class RuleFault : std::uint8_t {
  kNone = 0,
  kGap,           // an absent node before a present one
  kAbsentEdge,    // an edge at an absent node
  kSize,          // too few nodes
  kInput,         // inputs not exactly at the front
  kOutput,        // output not exactly the last present node
  kBoundaryEdge,  // an edge into an input or out of the output
  kTooManyEdges,
  kNoPredecessor,  // a node without predecessor that is no input
  kNoSuccessor,    // a node without successor that is not the output
};

RuleFault find_fault(const CellLayout& layout, const SpaceRules& rules, const Cell& cell);

}  // namespace a2v

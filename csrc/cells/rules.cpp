// SPDX-License-Identifier: Apache-2.0
//
// The rules of a general space, checked one after another on the masks of one cell.

#include "rules.h"

namespace a2v {

namespace {

bool labels_misplaced_at_front(const SpaceRules& rules, const Cell& cell, int nodes) {
  for (int v = 0; v < nodes; ++v) {
    const int op = cell.label[v] - 1;
    if (v < rules.num_inputs ? op != v : op < rules.num_inputs) return true;
  }
  return nodes < rules.num_inputs;
}

bool output_misplaced(const CellLayout& layout, const Cell& cell, int nodes) {
  for (int v = 0; v < nodes; ++v)
    if ((cell.label[v] == layout.num_op_types) != (v == nodes - 1)) return true;
  return nodes == 0;
}

}  // namespace

RuleFault find_fault(const CellLayout& layout, const SpaceRules& rules, const Cell& cell) {
  const int nodes = num_present(layout, cell);
  for (int v = 0; v < nodes; ++v)
    if (cell.label[v] == 0) return RuleFault::kGap;
  for (int v = nodes; v < layout.num_nodes; ++v)
    if (cell.preds[v] != 0) return RuleFault::kAbsentEdge;
  if (nodes < rules.min_nodes(layout)) return RuleFault::kSize;
  if (labels_misplaced_at_front(rules, cell, nodes)) return RuleFault::kInput;
  if (rules.has_output && output_misplaced(layout, cell, nodes)) return RuleFault::kOutput;
  for (int v = 0; v < rules.num_inputs; ++v)
    if (cell.preds[v] != 0) return RuleFault::kBoundaryEdge;
  if (num_edges(layout, cell) > rules.max_edges) return RuleFault::kTooManyEdges;
  std::uint32_t with_successor = 0;
  for (int v = 0; v < nodes; ++v) {
    with_successor |= cell.preds[v];
    if (rules.needs_predecessors() && v >= rules.num_inputs && cell.preds[v] == 0)
      return RuleFault::kNoPredecessor;
  }
  if (rules.needs_successors() && with_successor != (1u << (nodes - 1)) - 1)
    return RuleFault::kNoSuccessor;
  return RuleFault::kNone;
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// Dense cells <-> codes. One pass per cell; the checks ride along with the packing.

#include "dense.h"

#include <cstring>

namespace a2v {

namespace {

std::string at_cell(const char* argument, std::int64_t b) {
  return std::string(argument) + ": cell " + std::to_string(b);
}

std::string edge_text(int x, int y) {
  return "edge " + std::to_string(x) + " -> " + std::to_string(y);
}

}  // namespace

std::string pack_dense(const CellLayout& layout, const std::uint8_t* adjacency,
                       const std::int16_t* node_ops, std::int64_t count, std::uint64_t* codes) {
  const int n = layout.num_nodes;
  for (std::int64_t b = 0; b < count; ++b) {
    const std::uint8_t* matrix = adjacency + b * n * n;
    const std::int16_t* labels = node_ops + b * n;
    Cell cell;
    for (int x = 0; x < n; ++x) {
      for (int y = 0; y < n; ++y) {
        if (matrix[x * n + y] == 0) continue;
        if (matrix[x * n + y] != 1)
          return at_cell("adjacency", b) + " has a value other than 0 and 1 at " + edge_text(x, y);
        if (x >= y)
          return at_cell("adjacency", b) + " has " + edge_text(x, y) +
                 " on or below the diagonal; sort the nodes topologically (upper-triangular)";
        cell.preds[y] = static_cast<std::uint16_t>(cell.preds[y] | 1u << x);
      }
    }
    for (int v = 0; v < n; ++v) {
      if (labels[v] < -1 || labels[v] >= layout.num_op_types)
        return at_cell("node_ops", b) + " has operation " + std::to_string(labels[v]) +
               " at node " + std::to_string(v) + "; use -1 (absent) to " +
               std::to_string(layout.num_op_types - 1);
      cell.label[v] = static_cast<std::uint8_t>(labels[v] + 1);
    }
    pack_cell(layout, cell, codes + b * layout.words());
  }
  return {};
}

void unpack_dense(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                  std::uint8_t* adjacency, std::int16_t* node_ops) {
  const int n = layout.num_nodes;
  std::memset(adjacency, 0, static_cast<std::size_t>(count) * static_cast<std::size_t>(n * n));
  for (std::int64_t b = 0; b < count; ++b) {
    const Cell cell = unpack_cell(layout, codes + b * layout.words());
    std::uint8_t* matrix = adjacency + b * n * n;
    for (int y = 0; y < n; ++y) {
      for (std::uint32_t m = cell.preds[y]; m != 0; m &= m - 1)
        matrix[std::countr_zero(m) * n + y] = 1;
      node_ops[b * n + y] = static_cast<std::int16_t>(cell.label[y] - 1);
    }
  }
}

}  // namespace a2v

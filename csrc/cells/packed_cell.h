// SPDX-License-Identifier: Apache-2.0
//
// The packed cell: one architecture as a few bits, read and written here and nowhere else.
//
//   bit q = x + y(y-1)/2          edge x -> y, for x < y        (N(N-1)/2 bits)
//   field v = op_bits() bits      label of node v: operation index + 1, 0 = absent
//
// Node v's field starts at bit edge_bits() + v * op_bits(). Bit b lives in word b / 64 at position
// b % 64; unused high bits are zero. Edges come column by column, so the predecessors of one node
// are adjacent bits and a cell unpacks into N masks without a table.
//
// Header-only and free of torch and pybind11: the cell core, the torch operator that unpacks
// batches and the sanitizer build of the tests include this one file.

#pragma once

#include <bit>
#include <cstdint>

namespace a2v {

inline constexpr int kMaxNodes = 16;
inline constexpr int kMaxOpTypes = 254;
inline constexpr int kMaxWords = 4;  // 120 edge bits + 16 fields of 8 bits

struct CellLayout {
  int num_nodes = 2;     // N, 2..kMaxNodes
  int num_op_types = 1;  // F, 1..kMaxOpTypes

  constexpr int edge_bits() const { return num_nodes * (num_nodes - 1) / 2; }
  constexpr int op_bits() const { return std::bit_width(static_cast<unsigned>(num_op_types)); }
  constexpr int num_bits() const { return edge_bits() + num_nodes * op_bits(); }
  constexpr int words() const { return (num_bits() + 63) / 64; }
  constexpr bool supported() const {
    return num_nodes >= 2 && num_nodes <= kMaxNodes && num_op_types >= 1 &&
           num_op_types <= kMaxOpTypes;
  }
  constexpr bool operator==(const CellLayout&) const = default;
};

// A cell taken apart. `preds[v]` holds bit u for an edge u -> v (u < v); `label[v]` is 0 for an
// absent node, otherwise operation index + 1. Entries at and beyond the layout's num_nodes are
// zero.
struct Cell {
  std::uint16_t preds[kMaxNodes] = {};
  std::uint8_t label[kMaxNodes] = {};

  constexpr bool operator==(const Cell&) const = default;
};

// `count` (1..16) bits of `words` starting at bit `first`.
constexpr std::uint32_t get_bits(const std::uint64_t* words, int first, int count) {
  const int word = first >> 6;
  const int shift = first & 63;
  std::uint64_t bits = words[word] >> shift;
  if (shift + count > 64) bits |= words[word + 1] << (64 - shift);
  return static_cast<std::uint32_t>(bits & ((std::uint64_t{1} << count) - 1));
}

// Ors `value` (below 2^count) into `words` at bit `first`; the target bits must be zero.
constexpr void put_bits(std::uint64_t* words, int first, int count, std::uint32_t value) {
  const int word = first >> 6;
  const int shift = first & 63;
  words[word] |= static_cast<std::uint64_t>(value) << shift;
  if (shift + count > 64) words[word + 1] |= static_cast<std::uint64_t>(value) >> (64 - shift);
}

constexpr Cell unpack_cell(const CellLayout& layout, const std::uint64_t* words) {
  Cell cell;
  int bit = 0;
  for (int v = 1; v < layout.num_nodes; bit += v, ++v)
    cell.preds[v] = static_cast<std::uint16_t>(get_bits(words, bit, v));
  const int width = layout.op_bits();
  for (int v = 0; v < layout.num_nodes; ++v, bit += width)
    cell.label[v] = static_cast<std::uint8_t>(get_bits(words, bit, width));
  return cell;
}

// Writes layout.words() words. Bits of preds at or above their own node are not looked at.
constexpr void pack_cell(const CellLayout& layout, const Cell& cell, std::uint64_t* words) {
  for (int w = 0; w < layout.words(); ++w) words[w] = 0;
  int bit = 0;
  for (int v = 1; v < layout.num_nodes; bit += v, ++v)
    put_bits(words, bit, v, cell.preds[v] & ((1u << v) - 1));
  const int width = layout.op_bits();
  for (int v = 0; v < layout.num_nodes; ++v, bit += width)
    put_bits(words, bit, width, cell.label[v]);
}

// True when every node field holds 0..F and every bit beyond the fields is zero: what a code must
// satisfy before the rest of the core may read it.
constexpr bool is_well_formed(const CellLayout& layout, const std::uint64_t* words) {
  const int width = layout.op_bits();
  for (int v = 0; v < layout.num_nodes; ++v) {
    const std::uint32_t label = get_bits(words, layout.edge_bits() + v * width, width);
    if (label > static_cast<std::uint32_t>(layout.num_op_types)) return false;
  }
  const int used = layout.num_bits() & 63;
  return used == 0 || (words[layout.words() - 1] >> used) == 0;
}

constexpr int num_present(const CellLayout& layout, const Cell& cell) {
  int present = 0;
  for (int v = 0; v < layout.num_nodes; ++v) present += cell.label[v] != 0;
  return present;
}

constexpr int num_edges(const CellLayout& layout, const Cell& cell) {
  int edges = 0;
  for (int v = 0; v < layout.num_nodes; ++v) edges += std::popcount(cell.preds[v]);
  return edges;
}

// Successor masks of all nodes: `succs[v]` holds bit w for an edge v -> w.
constexpr void successors(const CellLayout& layout, const Cell& cell,
                          std::uint16_t succs[kMaxNodes]) {
  for (int v = 0; v < kMaxNodes; ++v) succs[v] = 0;
  for (int v = 1; v < layout.num_nodes; ++v)
    for (std::uint32_t m = cell.preds[v]; m != 0; m &= m - 1)
      succs[std::countr_zero(m)] = static_cast<std::uint16_t>(succs[std::countr_zero(m)] | 1u << v);
}

static_assert(CellLayout{7, 5}.num_bits() == 42 && CellLayout{8, 7}.num_bits() == 52);
static_assert(CellLayout{11, 11}.num_bits() == 99 && CellLayout{11, 11}.words() == 2);
static_assert(CellLayout{kMaxNodes, kMaxOpTypes}.words() == kMaxWords);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// Colours of nodes: what tells two nodes apart after l rounds of message passing.
//
// A node's colour is its operation at first, then (own colour, colours of its neighbours) of the
// round before: the classes of the Weisfeiler-Leman refinement. Two nodes of one colour have one
// state in any graph network of that depth. Colours are kept twice:
//
//   row   the exact colour, an index into a table; equal exactly where the colours are
//   hash  64 bits that depend on the colour's content alone, not on the table it stands in
//
// Neighbours are listed, and later summed, in the order of their hashes. So the bits of a state
// depend neither on how its cell numbers its nodes nor on what else is encoded. Where two colours
// collide in 64 bits, their rows break the tie, which costs that promise and no correctness.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cells/colour_key.h"
#include "cells/packed_cell.h"

namespace a2v {

struct ColourNode {
  std::uint64_t hash;
  std::uint32_t row;
  std::uint16_t successors;  // bit u: an edge to node u of the cell
  std::uint16_t predecessors;
};

// What look-ups of a cell's next colours need.
struct NextColours {
  std::uint64_t hash[kMaxNodes];
  std::uint32_t keys[kMaxNodes * (kKeyHeader + kMaxNodes - 1)];  // [N, key_size], colour_key.h
};

// Nodes of one cell in the order of (hash, row).
void order_nodes(const ColourNode* nodes, int num_nodes, std::uint8_t* order);

// Keys and hashes of the next round. directed: tell successors and predecessors apart.
void next_colours(const ColourNode* nodes, int num_nodes, bool directed, NextColours* next);

// Depends on the colours after `rounds` rounds of an undirected cell's nodes, in whatever order
// they stand: equal wherever they are, and else with a chance of 2^-64.
std::uint64_t signature_of(const CellLayout& layout, const std::uint64_t* words, int rounds);

// Nodes of a well-formed cell; rows are labels (0 = absent, else operation + 1).
void first_colours(const CellLayout& layout, const std::uint64_t* words, ColourNode* nodes);

// Rows of one round by key: open addressing on the hash, decided by comparing whole keys.
class ColourTable {
 public:
  explicit ColourTable(int num_nodes);

  void clear();
  std::int64_t size() const { return static_cast<std::int64_t>(hashes_.size()); }
  // [size, key_size], in the order in which the rows were added.
  const std::uint32_t* keys() const { return keys_.data(); }

  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[slot_of(hash)]); }
  // The row of `key`, a new one where it is not there yet.
  std::uint32_t row_of(std::uint64_t hash, const std::uint32_t* key);

 private:
  struct Slot {
    std::uint32_t next_row;  // row + 1; 0 where the slot is free
    std::uint32_t tag;       // bits of the hash that do not choose the slot
  };

  std::size_t slot_of(std::uint64_t hash) const { return hash & (slots_.size() - 1); }
  std::uint32_t add(std::uint64_t hash, const std::uint32_t* key);
  void grow();

  std::size_t key_size_;
  std::vector<Slot> slots_;
  std::vector<std::uint64_t> hashes_;
  std::vector<std::uint32_t> keys_;
};

}  // namespace a2v

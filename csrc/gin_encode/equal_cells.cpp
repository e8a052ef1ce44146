// SPDX-License-Identifier: Apache-2.0
// See equal_cells.h.

#include "gin_encode/equal_cells.h"

#include <algorithm>
#include <bit>

#include "cells/node_colours.h"

namespace a2v {
namespace {

constexpr int kBoth = 2 * kMaxNodes;

// What tells two nodes of a pair of cells apart in the next round: their colour, and how many
// neighbours have each colour, four bits a colour.
struct PairKey {
  std::uint64_t counts[2];
  std::uint32_t own;

  bool operator==(const PairKey&) const = default;
};

// Numbers equal keys equally, in the order of their first appearance; returns how many differ.
int number(const PairKey* keys, int count, std::uint32_t* colours) {
  int firsts[kBoth];
  int used = 0;
  for (int v = 0; v < count; ++v) {
    int colour = 0;
    while (colour < used && !(keys[firsts[colour]] == keys[v])) {
      ++colour;
    }
    if (colour == used) {
      firsts[used++] = v;
    }
    colours[v] = static_cast<std::uint32_t>(colour);
  }
  return used;
}

}  // namespace

bool match_nodes(const CellLayout& layout, const std::uint64_t* a, const std::uint64_t* b,
                 int rounds, std::uint8_t* image) {
  const int n = layout.num_nodes;
  ColourNode nodes[kBoth];
  first_colours(layout, a, nodes);
  first_colours(layout, b, nodes + n);
  PairKey keys[kBoth];
  for (int v = 0; v < 2 * n; ++v) {
    keys[v] = {.counts = {}, .own = nodes[v].row};
  }
  std::uint32_t colours[kBoth];
  int used = number(keys, 2 * n, colours);
  for (int round = 0; round < rounds; ++round) {
    for (int v = 0; v < 2 * n; ++v) {
      keys[v] = {.counts = {}, .own = colours[v]};
      const std::uint32_t* cell = colours + (v < n ? 0 : n);
      for (unsigned mask = nodes[v].successors | nodes[v].predecessors; mask != 0;
           mask &= mask - 1) {
        const std::uint32_t colour = cell[std::countr_zero(mask)];
        keys[v].counts[colour / 16] += std::uint64_t{1} << (colour % 16 * 4);
      }
    }
    const int before = used;
    used = number(keys, 2 * n, colours);
    if (used == before) {
      break;  // nothing will be told apart any more
    }
  }
  unsigned taken = 0;
  for (int v = 0; v < n; ++v) {
    int u = 0;
    while (u < n && (colours[n + u] != colours[v] || (taken >> u & 1U) != 0)) {
      ++u;
    }
    if (u == n) {
      return false;
    }
    taken |= 1U << u;
    image[v] = static_cast<std::uint8_t>(u);
  }
  return true;
}

EqualCells::EqualCells(const CellLayout& layout, int rounds, const std::uint64_t* codes,
                       std::int64_t num_cells)
    : layout_(layout),
      rounds_(rounds),
      codes_(codes),
      signatures_(static_cast<std::size_t>(num_cells)),
      original_(static_cast<std::size_t>(num_cells)) {}

void EqualCells::sign(std::int64_t first, std::int64_t last) {
  for (std::int64_t b = first; b < last; ++b) {
    signatures_[static_cast<std::size_t>(b)] = signature_of(layout_, words(b), rounds_);
  }
}

void EqualCells::link() {
  // Open addressing, at most half full; a slot holds a cell + 1.
  std::vector<std::int64_t> slots(std::bit_ceil(2 * signatures_.size() + 1));
  for (std::size_t b = 0; b < signatures_.size(); ++b) {
    const std::uint64_t signature = signatures_[b];
    std::size_t slot = signature & (slots.size() - 1);
    while (slots[slot] != 0 &&
           signatures_[static_cast<std::size_t>(slots[slot] - 1)] != signature) {
      slot = (slot + 1) & (slots.size() - 1);
    }
    if (slots[slot] == 0) {
      slots[slot] = static_cast<std::int64_t>(b) + 1;
    }
    original_[b] = slots[slot] - 1;
  }
}

void EqualCells::confirm(std::int64_t first, std::int64_t last) {
  std::uint8_t image[kMaxNodes];
  for (std::int64_t b = first; b < last; ++b) {
    std::int64_t& original = original_[static_cast<std::size_t>(b)];
    if (original != b && !match_nodes(layout_, words(b), words(original), rounds_, image)) {
      original = b;
    }
  }
}

void EqualCells::collect() {
  originals_.clear();
  for (std::size_t b = 0; b < original_.size(); ++b) {
    if (original_[b] == static_cast<std::int64_t>(b)) {
      originals_.push_back(original_[b]);
    }
  }
}

void EqualCells::match(std::int64_t b, std::uint8_t* image) const {
  match_nodes(layout_, words(b), words(original(b)), rounds_, image);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// See node_colours.h.

#include "cells/node_colours.h"

#include <bit>

namespace a2v {
namespace {

constexpr std::size_t kFirstSlots = 1024;
constexpr std::uint64_t kOwn = 0x9E3779B97F4A7C15U;
constexpr std::uint64_t kPredecessor = 0xD1B54A32D192ED03U;

// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// 1 where a comes before b, without a branch.
unsigned before(const ColourNode& a, const ColourNode& b) {
  return static_cast<unsigned>(a.hash < b.hash) |
         (static_cast<unsigned>(a.hash == b.hash) & static_cast<unsigned>(a.row < b.row));
}

// Appends `node` to the keys, and its hash to the sums, of the nodes in `mask`.
void append(std::uint32_t mask, std::uint32_t row, std::uint64_t hash, int size,
            std::uint32_t* keys, std::uint64_t* sums) {
  for (; mask != 0; mask &= mask - 1) {
    const int v = std::countr_zero(mask);
    std::uint32_t* key = keys + v * size;
    key[kKeyHeader + key[2]++] = row;
    sums[v] += hash;  // a sum, because it does not depend on the order
  }
}

bool same(const std::uint32_t* a, const std::uint32_t* b, std::size_t length) {
  for (std::size_t i = 0; i < length; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

}  // namespace

void order_nodes(const ColourNode* nodes, int num_nodes, std::uint8_t* order) {
  unsigned rank[kMaxNodes] = {};
  for (int v = 1; v < num_nodes; ++v) {
    for (int u = 0; u < v; ++u) {
      const unsigned first = before(nodes[v], nodes[u]);
      rank[u] += first;
      rank[v] += 1 - first;
    }
  }
  for (int v = 0; v < num_nodes; ++v) {
    order[rank[v]] = static_cast<std::uint8_t>(v);
  }
}

void next_colours(const ColourNode* nodes, int num_nodes, bool directed, NextColours* next) {
  const int size = key_size(num_nodes);
  std::uint8_t order[kMaxNodes];
  order_nodes(nodes, num_nodes, order);
  std::uint64_t mixed[kMaxNodes];
  for (int v = 0; v < num_nodes; ++v) {
    mixed[v] = mix(nodes[v].hash);
    next->hash[v] = nodes[v].hash * kOwn;
    next->keys[v * size] = nodes[v].row;
    next->keys[v * size + 2] = 0;
  }
  for (int place = 0; place < num_nodes; ++place) {
    const int u = order[place];
    // u is a successor of its predecessors.
    const std::uint32_t mask =
        directed ? nodes[u].predecessors : nodes[u].predecessors | nodes[u].successors;
    append(mask, nodes[u].row, mixed[u], size, next->keys, next->hash);
  }
  for (int v = 0; v < num_nodes; ++v) {
    next->keys[v * size + 1] = next->keys[v * size + 2];
  }
  for (int place = 0; place < num_nodes && directed; ++place) {
    const int u = order[place];
    append(nodes[u].successors, nodes[u].row, mixed[u] * kPredecessor, size, next->keys,
           next->hash);
  }
  for (int v = 0; v < num_nodes; ++v) {
    next->hash[v] = mix(next->hash[v]);
  }
}

std::uint64_t signature_of(const CellLayout& layout, const std::uint64_t* words, int rounds) {
  ColourNode nodes[kMaxNodes];
  first_colours(layout, words, nodes);
  std::uint64_t mixed[kMaxNodes];
  const auto mix_all = [&] {
    for (int v = 0; v < layout.num_nodes; ++v) {
      mixed[v] = mix(nodes[v].hash);
    }
  };
  mix_all();
  for (int round = 0; round < rounds; ++round) {
    for (int v = 0; v < layout.num_nodes; ++v) {
      std::uint64_t sum = nodes[v].hash * kOwn;
      for (unsigned mask = nodes[v].successors | nodes[v].predecessors; mask != 0;
           mask &= mask - 1) {
        sum += mixed[std::countr_zero(mask)];
      }
      nodes[v].hash = mix(sum);
    }
    mix_all();
  }
  std::uint64_t all = 0;
  for (int v = 0; v < layout.num_nodes; ++v) {
    all += mixed[v];  // of the colours after `rounds` rounds
  }
  return mix(all);
}

void first_colours(const CellLayout& layout, const std::uint64_t* words, ColourNode* nodes) {
  const Cell cell = unpack_cell(layout, words);
  std::uint16_t succs[kMaxNodes];
  successors(layout, cell, succs);
  for (int v = 0; v < layout.num_nodes; ++v) {
    nodes[v] = {.hash = mix(cell.label[v] + std::uint64_t{1}),
                .row = cell.label[v],
                .successors = succs[v],
                .predecessors = cell.preds[v]};
  }
}

ColourTable::ColourTable(int num_nodes)
    : key_size_(static_cast<std::size_t>(key_size(num_nodes))), slots_(kFirstSlots) {}

void ColourTable::clear() {
  slots_.assign(slots_.size(), Slot{});
  hashes_.clear();
  keys_.clear();
}

std::uint32_t ColourTable::row_of(std::uint64_t hash, const std::uint32_t* key) {
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  const auto length = static_cast<std::size_t>(kKeyHeader) + key[2];
  for (std::size_t slot = slot_of(hash);; slot = (slot + 1) & (slots_.size() - 1)) {
    const Slot found = slots_[slot];
    if (found.next_row == 0) {
      return add(hash, key);
    }
    const std::uint32_t row = found.next_row - 1;
    // The counts stand in the key, so equal keys have equal lengths.
    if (found.tag == tag && same(keys_.data() + row * key_size_, key, length)) {
      return row;
    }
  }
}

std::uint32_t ColourTable::add(std::uint64_t hash, const std::uint32_t* key) {
  if (2 * (hashes_.size() + 1) > slots_.size()) {
    grow();
  }
  const auto row = static_cast<std::uint32_t>(hashes_.size());
  hashes_.push_back(hash);
  keys_.insert(keys_.end(), key, key + key_size_);
  std::size_t slot = slot_of(hash);
  while (slots_[slot].next_row != 0) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  slots_[slot] = {.next_row = row + 1, .tag = static_cast<std::uint32_t>(hash >> 32)};
  return row;
}

void ColourTable::grow() {
  slots_.assign(2 * slots_.size(), Slot{});
  for (std::size_t row = 0; row < hashes_.size(); ++row) {
    std::size_t slot = slot_of(hashes_[row]);
    while (slots_[slot].next_row != 0) {
      slot = (slot + 1) & (slots_.size() - 1);
    }
    slots_[slot] = {.next_row = static_cast<std::uint32_t>(row + 1),
                    .tag = static_cast<std::uint32_t>(hashes_[row] >> 32)};
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// See node_colours.h.

#include "gin_encode/node_colours.h"

#include <bit>
#include <cstring>

namespace a2v {
namespace {

constexpr std::size_t kFirstSlots = 1024;

// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

bool before(const ColourNode& a, const ColourNode& b) {
  return a.hash != b.hash ? a.hash < b.hash : a.row < b.row;
}

// `mask` with bit u moved to rank[u], so that its bits come in order.
std::uint32_t ranked(std::uint32_t mask, const NodeOrder& order) {
  std::uint32_t result = 0;
  for (; mask != 0; mask &= mask - 1) {
    result |= 1U << order.rank[std::countr_zero(mask)];
  }
  return result;
}

std::uint32_t* append_rows(const ColourNode* nodes, const NodeOrder& order, std::uint32_t mask,
                           std::uint32_t* out) {
  for (mask = ranked(mask, order); mask != 0; mask &= mask - 1) {
    *out++ = nodes[order.node[std::countr_zero(mask)]].row;
  }
  return out;
}

}  // namespace

NodeOrder node_order(const ColourNode* nodes, int num_nodes) {
  NodeOrder order;
  for (int v = 0; v < num_nodes; ++v) {
    int place = v;
    for (; place > 0 && before(nodes[v], nodes[order.node[place - 1]]); --place) {
      order.node[place] = order.node[place - 1];
    }
    order.node[place] = static_cast<std::uint8_t>(v);
  }
  for (int place = 0; place < num_nodes; ++place) {
    order.rank[order.node[place]] = static_cast<std::uint8_t>(place);
  }
  return order;
}

void write_key(const ColourNode* nodes, const NodeOrder& order, int node, bool directed,
               std::uint32_t* key) {
  const std::uint32_t successors = nodes[node].successors;
  const std::uint32_t predecessors = nodes[node].predecessors;
  std::uint32_t* next = key + kKeyHeader;
  if (directed) {
    next = append_rows(nodes, order, successors, next);
    append_rows(nodes, order, predecessors, next);
  } else {
    append_rows(nodes, order, successors | predecessors, next);
  }
  const int all = std::popcount(successors | predecessors);
  key[0] = nodes[node].row;
  key[1] = static_cast<std::uint32_t>(directed ? std::popcount(successors) : all);
  key[2] = static_cast<std::uint32_t>(all);
}

void next_hashes(const ColourNode* nodes, int num_nodes, bool directed, std::uint64_t* hashes) {
  constexpr std::uint64_t kOwn = 0x9E3779B97F4A7C15U;
  constexpr std::uint64_t kPredecessor = 0xD1B54A32D192ED03U;
  std::uint64_t mixed[kMaxNodes];
  for (int v = 0; v < num_nodes; ++v) {
    mixed[v] = mix(nodes[v].hash);
  }
  for (int v = 0; v < num_nodes; ++v) {
    // Sums, because they do not depend on the order.
    std::uint64_t forwards = 0;
    std::uint64_t backwards = 0;
    for (std::uint32_t m = nodes[v].successors; m != 0; m &= m - 1) {
      forwards += mixed[std::countr_zero(m)];
    }
    for (std::uint32_t m = nodes[v].predecessors; m != 0; m &= m - 1) {
      backwards += mixed[std::countr_zero(m)];
    }
    hashes[v] = mix(nodes[v].hash * kOwn + forwards + backwards * (directed ? kPredecessor : 1));
  }
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
    if (found.tag == tag &&
        std::memcmp(keys_.data() + row * key_size_, key, length * sizeof *key) == 0) {
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

// SPDX-License-Identifier: Apache-2.0
//
// Generation by canonical augmentation (McKay, "Isomorph-free exhaustive generation", 1998). Cells
// grow node by node, each new node a sink. Two rules make every class appear exactly once:
//   - of the predecessor sets that the automorphisms of the cell so far map onto each other, one is
//   tried;
//   - the new node is kept only if it is the one that an isomorphism-invariant choice among the
//   sinks of
//     the grown cell would take away again (the output first of all), or is equivalent to that one.
// The choice is the sink of the largest ancestry, a hash of the tree of its ancestors that never
// changes once the node is placed, so nearly all cells are decided by comparing two numbers. Where
// ancestries tie, canonical forms with the node in question marked decide; a collision of hashes
// costs time, not truth.
//
// Automorphisms are rarely more than exchanges of twins (same label, predecessors and successors):
// when all nodes of one label and one predecessor set are twins there are no others, and it is
// enough that a predecessor set takes the first few of every set of twins. Otherwise the sets are
// listed and those with equal marked canonical forms are merged.
//
// Cut as well: nodes that still need a successor, and positions that need a predecessor, against
// the edges that are left.

#include "enumerate.h"

#include <algorithm>
#include <utility>

#include "canonical.h"
#include "parallel.h"

namespace a2v {

namespace {

// Prefixes of this many positions beyond the inputs are dealt out to the parts in turn: enough of
// them to balance (some 300 for NAS-Bench-101), few enough to cost nothing.
constexpr int kSplitDepth = 3;

constexpr std::uint32_t mask_below(int v) { return (1u << v) - 1; }

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// Canonical form of the first `nodes` nodes with one of them made unlike all others.
Cell marked_form(const CellLayout& layout, Cell cell, int nodes, int marked) {
  constexpr std::uint8_t kMark = 255;  // a label that no operation has
  cell.label[marked] = kMark;
  return canonical_cell({nodes, layout.num_op_types}, cell);
}

bool smaller(const Cell& a, const Cell& b) {
  return std::lexicographical_compare(a.preds, a.preds + kMaxNodes, b.preds, b.preds + kMaxNodes) ||
         (std::equal(a.preds, a.preds + kMaxNodes, b.preds) &&
          std::lexicographical_compare(a.label, a.label + kMaxNodes, b.label, b.label + kMaxNodes));
}

}  // namespace

Enumerator::Enumerator(const CellLayout& layout, const SpaceRules& rules, int part, int parts)
    : layout_(layout), rules_(rules), part_(part), parts_(parts), nodes_(rules.min_nodes(layout)) {
  running_ = start_size(nodes_);
}

// Sets up the walk over cells of `nodes` nodes; false beyond the layout.
bool Enumerator::start_size(int nodes) {
  nodes_ = nodes;
  if (nodes_ > layout_.num_nodes) return false;
  cell_ = Cell{};
  std::fill(succs_, succs_ + kMaxNodes, std::uint16_t{0});
  for (int v = 0; v < rules_.num_inputs; ++v) {
    cell_.label[v] = static_cast<std::uint8_t>(v + 1);
    ancestry_[v] = ancestry(v, 0);
  }
  position_ = rules_.num_inputs;
  levels_[position_].open = mask_below(position_);
  levels_[position_].edges = 0;
  enter(position_);
  return true;
}

std::uint64_t Enumerator::ancestry(int op, std::uint32_t preds) const {
  std::uint64_t sum = static_cast<std::uint64_t>(op) + 1;
  for (; preds != 0; preds &= preds - 1)
    sum += mix(ancestry_[std::countr_zero(preds)] + 0x9e3779b97f4a7c15u);
  return mix(sum);
}

// Once true for a set it is true for every larger one.
bool Enumerator::Level::too_many() const {
  return std::popcount(preds()) > limit || std::popcount(preds() & ~open) > slack;
}

// Steps through the subsets of `optional` in increasing order; false after the last. From a set
// with too many elements on, the sets that only add smaller elements to it are jumped over.
bool Enumerator::Level::next_subset() {
  do {
    const std::uint32_t unit = too_many() ? subset & (0u - subset) : 1u;
    subset = ((subset | ~optional) + unit) & optional;
  } while (subset != 0 && too_many());
  return subset != 0;
}

// Next predecessor set; false, and back at the first, after the last.
bool Enumerator::Level::next_preds() {
  if (!listed) return next_subset();
  next_set = next_set + 1 < sets.size() ? next_set + 1 : 0;
  subset = sets[next_set] & ~needed;
  return next_set != 0;
}

// Prepares the choices at `position`; `open` and `edges` of its level are already set.
void Enumerator::enter(int position) {
  Level& level = levels_[position];
  level.op = is_output_at(position) ? layout_.num_op_types - 1 : rules_.num_inputs;
  level.needed = is_output_at(position) && rules_.needs_successors() ? level.open : 0;
  level.optional = mask_below(position) & ~level.needed;
  // Of the edges left after this node every later node needs one as a target, or, seen from the
  // other end, this node, the later ones and all that are still open need one as a source.
  const int left = rules_.max_edges - level.edges;
  const int later = nodes_ - 1 - position;
  level.limit = rules_.needs_predecessors() || rules_.needs_successors() ? left - later : left;
  level.slack = kMaxNodes;
  if (rules_.needs_successors() && later > 0)
    level.slack = left - later - std::popcount(level.open);
  level.subset = 0;
  level.fresh = true;
  level.listed = find_twins(position);
  if (level.listed) list_orbits(position);
}

// Fills level.twin. True when the cell so far may have automorphisms other than exchanges of twins.
bool Enumerator::find_twins(int position) {
  bool others = false;
  for (int v = 0; v < position; ++v) {
    levels_[position].twin[v] = -1;
    for (int u = rules_.num_inputs; u < v; ++u) {
      if (cell_.label[u] != cell_.label[v] || cell_.preds[u] != cell_.preds[v]) continue;
      if (succs_[u] == succs_[v])
        levels_[position].twin[v] = static_cast<std::int8_t>(u);
      else
        others = true;
    }
  }
  return others;
}

// Keeps one predecessor set of every orbit under the automorphisms of the cell so far.
void Enumerator::list_orbits(int position) {
  Level& level = levels_[position];
  std::vector<std::pair<Cell, std::uint16_t>> found;
  Cell grown = cell_;
  do {
    if (!fits(position)) continue;
    grown.preds[position] = static_cast<std::uint16_t>(level.preds());
    found.emplace_back(marked_form(layout_, grown, position + 1, position), grown.preds[position]);
  } while (level.next_subset());
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return smaller(a.first, b.first); });
  level.sets.clear();
  for (std::size_t i = 0; i < found.size(); ++i)
    if (i == 0 || found[i].first != found[i - 1].first) level.sets.push_back(found[i].second);
  std::sort(level.sets.begin(), level.sets.end());
  level.next_set = 0;
  if (!level.sets.empty()) level.subset = level.sets[0] & ~level.needed;
}

// Next (predecessors, operation) pair at `position`; false when all were tried.
bool Enumerator::step(int position) {
  Level& level = levels_[position];
  const bool is_output = is_output_at(position);
  if (level.fresh) {
    level.fresh = false;
    const bool nothing = level.listed && level.sets.empty();
    return !nothing && (is_output || rules_.num_inner_ops(layout_) > 0);
  }
  if (!is_output) {
    if (++level.op < rules_.num_inputs + rules_.num_inner_ops(layout_)) return true;
    level.op = rules_.num_inputs;
  }
  return level.next_preds();
}

// Whether the current predecessors leave enough edges for the rest, and take twins in order.
bool Enumerator::fits(int position) const {
  const Level& level = levels_[position];
  const std::uint32_t preds = level.preds();
  if ((preds == 0 && rules_.needs_predecessors()) || level.too_many()) return false;
  for (std::uint32_t m = preds; m != 0; m &= m - 1) {
    const int twin = level.twin[std::countr_zero(m)];
    if (twin >= 0 && (preds >> twin & 1u) == 0) return false;
  }
  return true;
}

// Whether the node just placed is, up to equivalence, the sink that the choice would take away.
bool Enumerator::is_last_sink(int position) const {
  if (is_output_at(position)) return true;  // unique by its label, so the choice for complete cells
  const std::uint32_t others =
      levels_[position].open & ~cell_.preds[position] & ~mask_below(rules_.num_inputs);
  std::uint32_t rivals = 0;
  for (std::uint32_t m = others; m != 0; m &= m - 1) {
    const int v = std::countr_zero(m);
    if (ancestry_[v] > ancestry_[position]) return false;
    const bool twin =
        cell_.label[v] == cell_.label[position] && cell_.preds[v] == cell_.preds[position];
    if (ancestry_[v] == ancestry_[position] && !twin) rivals |= 1u << v;
  }
  if (rivals == 0) return true;
  const Cell mine = marked_form(layout_, cell_, position + 1, position);
  for (; rivals != 0; rivals &= rivals - 1)
    if (smaller(mine, marked_form(layout_, cell_, position + 1, std::countr_zero(rivals))))
      return false;
  return true;
}

void Enumerator::place(int position) {
  const Level& level = levels_[position];
  cell_.label[position] = static_cast<std::uint8_t>(level.op + 1);
  cell_.preds[position] = static_cast<std::uint16_t>(level.preds());
  ancestry_[position] = ancestry(level.op, level.preds());
  for (std::uint32_t m = level.preds(); m != 0; m &= m - 1) {
    std::uint16_t& succs = succs_[std::countr_zero(m)];
    succs = static_cast<std::uint16_t>(succs | 1u << position);
  }
}

void Enumerator::unplace(int position) {
  for (std::uint32_t m = cell_.preds[position]; m != 0; m &= m - 1) {
    std::uint16_t& succs = succs_[std::countr_zero(m)];
    succs = static_cast<std::uint16_t>(succs & ~(1u << position));
  }
  cell_.label[position] = 0;
  cell_.preds[position] = 0;
}

// Moves to the next complete cell of the current size; false when there is none.
bool Enumerator::advance() {
  if (position_ == nodes_) unplace(--position_);  // the cell handed out last
  for (;;) {
    if (!step(position_)) {
      if (position_ == rules_.num_inputs) return false;
      unplace(--position_);
      continue;
    }
    if (!fits(position_)) continue;
    place(position_);
    const bool dealt = position_ == std::min(rules_.num_inputs + kSplitDepth, nodes_) - 1;
    if (!is_last_sink(position_) || (dealt && prefixes_++ % parts_ != part_)) {
      unplace(position_);
      continue;
    }
    const Level& level = levels_[position_++];
    if (position_ == nodes_) return true;
    levels_[position_].open = (level.open & ~level.preds()) | 1u << (position_ - 1);
    levels_[position_].edges = level.edges + std::popcount(level.preds());
    enter(position_);
  }
}

std::int64_t Enumerator::next(std::int64_t limit, std::uint64_t* codes) {
  std::int64_t count = 0;
  while (running_ && count < limit) {
    if (!advance()) {
      running_ = start_size(nodes_ + 1);
      continue;
    }
    pack_cell(layout_, canonical_cell(layout_, cell_), codes + count * layout_.words());
    ++count;
  }
  return count;
}

namespace {

// A code of kWords words, ordered as an unsigned number whose last word counts most.
template <int kWords>
struct Row {
  std::uint64_t word[kWords];

  bool operator<(const Row& other) const {
    for (int w = kWords - 1; w > 0; --w)
      if (word[w] != other.word[w]) return word[w] < other.word[w];
    return word[0] < other.word[0];
  }
};

// Every part sorted where it was found, then merged two by two.
template <int kWords>
std::vector<std::uint64_t> collect(const CellLayout& layout, const SpaceRules& rules, int parts) {
  constexpr std::int64_t kChunk = 8192;
  std::vector<std::vector<Row<kWords>>> found(static_cast<std::size_t>(parts));
  parallel_for(parts, 1, parts, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint64_t> chunk(kChunk * kWords);
    for (std::int64_t part = begin; part < end; ++part) {
      auto& mine = found[static_cast<std::size_t>(part)];
      Enumerator walk(layout, rules, static_cast<int>(part), parts);
      for (std::int64_t got = kChunk; got == kChunk;) {
        got = walk.next(kChunk, chunk.data());
        for (std::int64_t b = 0; b < got; ++b) {
          Row<kWords>& row = mine.emplace_back();
          std::copy_n(chunk.data() + b * kWords, kWords, row.word);
        }
      }
      std::sort(mine.begin(), mine.end());
    }
  });
  for (std::size_t step = 1; step < found.size(); step *= 2) {
    for (std::size_t i = 0; i + step < found.size(); i += 2 * step) {
      std::vector<Row<kWords>> merged(found[i].size() + found[i + step].size());
      std::merge(found[i].begin(), found[i].end(), found[i + step].begin(), found[i + step].end(),
                 merged.begin());
      found[i] = std::move(merged);
      found[i + step] = {};
    }
  }
  std::vector<std::uint64_t> codes;
  codes.reserve(found[0].size() * kWords);
  for (const Row<kWords>& row : found[0]) codes.insert(codes.end(), row.word, row.word + kWords);
  return codes;
}

}  // namespace

std::vector<std::uint64_t> enumerate_sorted(const CellLayout& layout, const SpaceRules& rules,
                                            int threads) {
  static_assert(kMaxWords == 4);
  const int parts = num_threads(threads);
  switch (layout.words()) {
    case 1:
      return collect<1>(layout, rules, parts);
    case 2:
      return collect<2>(layout, rules, parts);
    case 3:
      return collect<3>(layout, rules, parts);
    default:
      return collect<4>(layout, rules, parts);
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// Orderly generation (Read 1978, Faradzev 1978). The canonical order places the smallest available
// (operation, predecessors) first, so in a canonical cell no node may be smaller than one placed between
// its last predecessor and itself. That necessary condition is cheap and cuts the tree as it grows; the
// few cells that pass it without being canonical are dropped at the leaf. Further cuts: nodes that still
// need a successor, and positions that need a predecessor, against the edges that are left.

#include "enumerate.h"

#include <algorithm>

#include "canonical.h"
#include "parallel.h"

namespace a2v {

namespace {

// Prefixes of this many positions beyond the inputs are dealt out to the parts in turn: enough of them
// to balance (some 300 for NAS-Bench-101), few enough to cost nothing.
constexpr int kSplitDepth = 3;

constexpr std::uint32_t mask_below(int v) { return (1u << v) - 1; }

}  // namespace

Enumerator::Enumerator(const CellLayout& layout, const SpaceRules& rules, int part, int parts)
    : layout_(layout), rules_(rules), part_(part), parts_(parts), nodes_(rules.min_nodes(layout)) {
  running_ = start_size(nodes_);
}

// Sets up the walk over cells of `nodes` nodes; moves on to larger cells while there are none to walk.
bool Enumerator::start_size(int nodes) {
  nodes_ = nodes;
  if (nodes_ > layout_.num_nodes) return false;
  cell_ = Cell{};
  for (int v = 0; v < rules_.num_inputs; ++v) cell_.label[v] = static_cast<std::uint8_t>(v + 1);
  levels_[rules_.num_inputs] = Level{};
  levels_[rules_.num_inputs].open = mask_below(rules_.num_inputs);
  position_ = rules_.num_inputs;
  enter(position_);
  return true;
}

// Prepares the choices at `position`; `open` and `edges` of its level are already set.
void Enumerator::enter(int position) {
  Level& level = levels_[position];
  const bool is_output = is_output_at(position);
  level.op = is_output ? layout_.num_op_types - 1 : rules_.num_inputs;
  level.needed = is_output && rules_.needs_successors() ? level.open : 0;
  level.optional = mask_below(position) & ~level.needed;
  level.subset = 0;
  level.fresh = true;
}

// Next (predecessors, operation) pair at `position`; false when all were tried.
bool Enumerator::step(Level& level, int position) const {
  const bool is_output = is_output_at(position);
  if (level.fresh) {
    level.fresh = false;
    return is_output || rules_.num_inner_ops(layout_) > 0;
  }
  if (!is_output && level.op + 1 < rules_.num_inputs + rules_.num_inner_ops(layout_)) {
    ++level.op;
    return true;
  }
  if (!is_output) level.op = rules_.num_inputs;
  level.subset = (level.subset - level.optional) & level.optional;  // next subset, 0 after the last
  return level.subset != 0;
}

bool Enumerator::admissible(const Level& level, int position) const {
  const std::uint32_t preds = level.needed | level.subset;
  if (preds == 0 && rules_.needs_predecessors()) return false;
  const int left = rules_.max_edges - level.edges - std::popcount(preds);
  if (left < 0) return false;
  const int positions_left = nodes_ - 1 - position;
  if (rules_.needs_predecessors() && left < positions_left) return false;
  if (rules_.needs_successors() && positions_left > 0) {
    // every edge still to come serves one node without successor; this node and later ones need one too
    const int open = std::popcount(level.open & ~preds);
    if (left < open + positions_left) return false;
  }
  const int last = preds == 0 ? -1 : static_cast<int>(std::bit_width(preds)) - 1;
  for (int v = last + 1; v < position; ++v) {
    const int op = cell_.label[v] - 1;
    if (op > level.op || (op == level.op && cell_.preds[v] > preds)) return false;
  }
  return true;
}

// Moves to the next complete labelled cell of the current size.
bool Enumerator::advance() {
  while (position_ >= rules_.num_inputs) {
    if (position_ == nodes_) {  // a complete cell was handed out: change its last position
      --position_;
      if (position_ < rules_.num_inputs) return false;
    }
    Level& level = levels_[position_];
    if (!step(level, position_)) {
      cell_.label[position_] = 0;
      cell_.preds[position_] = 0;
      --position_;
      continue;
    }
    if (!admissible(level, position_)) continue;
    if (position_ == std::min(rules_.num_inputs + kSplitDepth, nodes_) - 1 &&
        prefixes_++ % parts_ != part_)
      continue;
    const std::uint32_t preds = level.needed | level.subset;
    cell_.label[position_] = static_cast<std::uint8_t>(level.op + 1);
    cell_.preds[position_] = static_cast<std::uint16_t>(preds);
    ++position_;
    if (position_ == nodes_) return true;
    levels_[position_].open = (level.open & ~preds) | 1u << (position_ - 1);
    levels_[position_].edges = level.edges + std::popcount(preds);
    enter(position_);
  }
  return false;
}

// Whether canonical form has anything to decide in a cell that obeys the order of admissible(): two nodes
// of one operation and the same predecessors whose successors differ. Most cells have no such pair.
bool Enumerator::has_tie() const {
  std::uint16_t succs[kMaxNodes];
  bool known = false;
  for (int v = rules_.num_inputs + 1; v < nodes_; ++v) {
    for (int u = rules_.num_inputs; u < v; ++u) {
      if (cell_.label[u] != cell_.label[v] || cell_.preds[u] != cell_.preds[v]) continue;
      if (!known) successors(layout_, cell_, succs);
      known = true;
      if (succs[u] != succs[v]) return true;
    }
  }
  return false;
}

std::int64_t Enumerator::next(std::int64_t limit, std::uint64_t* codes) {
  std::int64_t count = 0;
  while (running_ && count < limit) {
    if (!advance()) {
      running_ = start_size(nodes_ + 1);
      continue;
    }
    if (has_tie() && canonical_cell(layout_, cell_) != cell_) continue;
    pack_cell(layout_, cell_, codes + count * layout_.words());
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

// SPDX-License-Identifier: Apache-2.0
//
// Sampling by rejection, and mutation by shuffling the list of edits.

#include "sample.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "parallel.h"
#include "random.h"

namespace a2v {

namespace {

// Slots for edges in a cell of `nodes` nodes: all pairs x < y but those into an input.
int num_slots(const SpaceRules& rules, int nodes) {
  return nodes * (nodes - 1) / 2 - rules.num_inputs * (rules.num_inputs - 1) / 2;
}

// Cumulative weights of (number of nodes, number of edges), weight = number of such encodings.
class SizeTable {
 public:
  SizeTable(const CellLayout& layout, const SpaceRules& rules) {
    double total = 0;
    for (int nodes = rules.min_nodes(layout); nodes <= layout.num_nodes; ++nodes) {
      double ways = 1;
      for (int v = rules.fixed_nodes(); v < nodes; ++v) ways *= rules.num_inner_ops(layout);
      const int slots = num_slots(rules, nodes);
      for (int edges = 0; edges <= std::min(slots, rules.max_edges); ++edges) {
        total += ways;
        entries_.push_back({nodes, edges, total});
        ways = ways * (slots - edges) / (edges + 1);
      }
    }
  }

  struct Entry {
    int nodes;
    int edges;
    double cumulative;
  };

  const Entry& draw(RandomStream& random) const {
    const double at = random.uniform() * entries_.back().cumulative;
    const auto found =
        std::upper_bound(entries_.begin(), entries_.end(), at,
                         [](double value, const Entry& entry) { return value < entry.cumulative; });
    return found == entries_.end() ? entries_.back() : *found;
  }

 private:
  std::vector<Entry> entries_;
};

Cell draw_cell(const CellLayout& layout, const SpaceRules& rules, int nodes, int edges,
               RandomStream& random) {
  Cell cell;
  for (int v = 0; v < nodes; ++v) {
    int op = v;
    if (v >= rules.num_inputs)
      op = rules.num_inputs + static_cast<int>(random.below(static_cast<std::uint32_t>(
                                  std::max(1, rules.num_inner_ops(layout)))));
    if (rules.has_output && v == nodes - 1) op = layout.num_op_types - 1;
    cell.label[v] = static_cast<std::uint8_t>(op + 1);
  }
  // selection sampling (Knuth, Algorithm S): exactly `edges` of the slots, every subset alike
  int slots = num_slots(rules, nodes);
  for (int y = rules.num_inputs; y < nodes; ++y) {
    for (int x = 0; x < y; ++x, --slots) {
      if (edges == 0) return cell;
      if (static_cast<int>(random.below(static_cast<std::uint32_t>(slots))) >= edges) continue;
      cell.preds[y] = static_cast<std::uint16_t>(cell.preds[y] | 1u << x);
      --edges;
    }
  }
  return cell;
}

struct Edit {
  enum Kind : std::uint8_t { kToggle, kRelabel, kSplit, kTakeOut } kind;
  std::uint8_t x;   // source, or the node concerned
  std::uint8_t y;   // target
  std::uint8_t op;  // new operation type
};

void list_edits(const CellLayout& layout, const SpaceRules& rules, const Cell& cell,
                std::vector<Edit>& edits) {
  edits.clear();
  const int nodes = num_present(layout, cell);
  const int inner_end = rules.num_inputs + rules.num_inner_ops(layout);
  const auto add = [&](Edit::Kind kind, int x, int y, int op) {
    edits.push_back({kind, static_cast<std::uint8_t>(x), static_cast<std::uint8_t>(y),
                     static_cast<std::uint8_t>(op)});
  };
  for (int y = rules.num_inputs; y < nodes; ++y)
    for (int x = 0; x < y; ++x) add(Edit::kToggle, x, y, 0);
  for (int v = rules.num_inputs; v < nodes - (rules.has_output ? 1 : 0); ++v)
    for (int op = rules.num_inputs; op < inner_end; ++op)
      if (cell.label[v] != op + 1) add(Edit::kRelabel, v, v, op);
  if (!rules.variable_size) return;
  for (int y = rules.num_inputs; y < nodes && nodes < layout.num_nodes; ++y)
    for (std::uint32_t m = cell.preds[y]; m != 0; m &= m - 1)
      for (int op = rules.num_inputs; op < inner_end; ++op)
        add(Edit::kSplit, std::countr_zero(m), y, op);
  for (int v = rules.num_inputs; v < nodes - (rules.has_output ? 1 : 0); ++v)
    add(Edit::kTakeOut, v, v, 0);
}

// Masks with a zero bit inserted at `at`, or the bit at `at` cut out.
std::uint16_t widen(std::uint32_t mask, int at) {
  const std::uint32_t low = (1u << at) - 1;
  return static_cast<std::uint16_t>((mask & low) | (mask & ~low) << 1);
}

std::uint16_t narrow(std::uint32_t mask, int at) {
  const std::uint32_t low = (1u << at) - 1;
  return static_cast<std::uint16_t>((mask & low) | (mask >> 1 & ~low));
}

Cell split_edge(const CellLayout& layout, const Cell& cell, const Edit& edit) {
  Cell out = cell;
  const int y = edit.y;
  for (int v = layout.num_nodes - 1; v > y; --v) {
    out.label[v] = cell.label[v - 1];
    out.preds[v] = widen(cell.preds[v - 1], y);
  }
  out.label[y] = static_cast<std::uint8_t>(edit.op + 1);
  out.preds[y] = static_cast<std::uint16_t>(1u << edit.x);
  out.preds[y + 1] = static_cast<std::uint16_t>((out.preds[y + 1] & ~(1u << edit.x)) | 1u << y);
  return out;
}

Cell take_out(const CellLayout& layout, const Cell& cell, int node) {
  Cell out = cell;
  for (int v = node; v < layout.num_nodes; ++v) {
    const bool last = v + 1 == layout.num_nodes;
    std::uint32_t preds = last ? 0 : cell.preds[v + 1];
    if (preds >> node & 1u) preds |= cell.preds[node];
    out.label[v] = last ? std::uint8_t{0} : cell.label[v + 1];
    out.preds[v] = narrow(preds & ~(1u << node), node);
  }
  return out;
}

Cell apply(const CellLayout& layout, const Cell& cell, const Edit& edit) {
  Cell out = cell;
  switch (edit.kind) {
    case Edit::kToggle:
      out.preds[edit.y] = static_cast<std::uint16_t>(out.preds[edit.y] ^ 1u << edit.x);
      return out;
    case Edit::kRelabel:
      out.label[edit.x] = static_cast<std::uint8_t>(edit.op + 1);
      return out;
    case Edit::kSplit:
      return split_edge(layout, cell, edit);
    case Edit::kTakeOut:
      return take_out(layout, cell, edit.x);
  }
  return out;
}

}  // namespace

std::int64_t sample_cells(const CellLayout& layout, const SpaceRules& rules, std::uint64_t seed,
                          const std::int64_t* items, std::int64_t count, std::int64_t round,
                          std::int64_t max_attempts, int threads, std::uint64_t* codes) {
  const SizeTable sizes(layout, rules);
  std::atomic<std::int64_t> failed{-1};
  parallel_for(count, 256, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end && failed < 0; ++i) {
      RandomStream random(seed, static_cast<std::uint64_t>(items[i]),
                          static_cast<std::uint64_t>(round));
      std::int64_t attempt = 0;
      for (; attempt < max_attempts; ++attempt) {
        const SizeTable::Entry& size = sizes.draw(random);
        const Cell cell = draw_cell(layout, rules, size.nodes, size.edges, random);
        if (find_fault(layout, rules, cell) != RuleFault::kNone) continue;
        pack_cell(layout, cell, codes + i * layout.words());
        break;
      }
      if (attempt == max_attempts) failed = i;
    }
  });
  return failed;
}

void edit_cells(const CellLayout& layout, const SpaceRules& rules, const std::uint64_t* codes,
                const std::int64_t* items, std::int64_t count, std::uint64_t seed, bool checked,
                int threads, std::int64_t* start, std::uint64_t* out) {
  const int words = layout.words();
  parallel_for(count, 256, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Edit> edits;
    for (std::int64_t i = begin; i < end; ++i) {
      const Cell cell = unpack_cell(layout, codes + i * words);
      list_edits(layout, rules, cell, edits);
      RandomStream random(seed, static_cast<std::uint64_t>(items[i]), 0);
      for (std::size_t k = edits.size(); k > 1; --k)
        std::swap(edits[k - 1], edits[random.below(static_cast<std::uint32_t>(k))]);
      Cell child = cell;
      std::int64_t at = start[i];
      start[i] = -1;
      for (; at < static_cast<std::int64_t>(edits.size()); ++at) {
        const Cell edited = apply(layout, cell, edits[static_cast<std::size_t>(at)]);
        if (checked && find_fault(layout, rules, edited) != RuleFault::kNone) continue;
        child = edited;
        start[i] = at + 1;
        break;
      }
      pack_cell(layout, child, out + i * words);
    }
  });
}

}  // namespace a2v

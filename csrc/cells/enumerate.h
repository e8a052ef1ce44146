// SPDX-License-Identifier: Apache-2.0
//
// Generation of a space: every isomorphism class once, as its canonical code, from a state of a few
// kilobytes. So 10^8 cells stream through constant memory, and there is no table of cells seen.

#pragma once

#include <cstdint>
#include <vector>

#include "packed_cell.h"
#include "rules.h"

namespace a2v {

// Walks the space depth first and can stop and go on after any cell. `part` of `parts` walks a
// share of the tree; the shares are disjoint and together make the space.
class Enumerator {
 public:
  Enumerator(const CellLayout& layout, const SpaceRules& rules, int part = 0, int parts = 1);

  // Writes up to `limit` codes; fewer only when the space is exhausted.
  std::int64_t next(std::int64_t limit, std::uint64_t* codes);

 private:
  // Choices at one position: an operation type and a predecessor set.
  struct Level {
    int op = 0;
    std::uint32_t needed = 0;    // predecessors that cannot be left out
    std::uint32_t optional = 0;  // predecessors that can
    std::uint32_t subset = 0;    // current subset of `optional`
    std::uint32_t open = 0;      // earlier nodes that still lack a successor
    int edges = 0;               // edges into earlier positions
    int limit = 0;               // most predecessors that leave edges enough for the rest
    int slack = 0;               // most of them that have a successor already
    bool fresh = true;           // nothing tried yet
    bool listed = false;  // `sets` holds the predecessor sets; else subsets are counted through
    std::int8_t twin[kMaxNodes] = {};  // the twin of each node that comes next before it, or -1
    std::vector<std::uint16_t> sets;
    std::size_t next_set = 0;

    std::uint32_t preds() const { return needed | subset; }
    bool too_many() const;
    bool next_subset();
    bool next_preds();
  };

  bool start_size(int nodes);
  bool advance();
  void enter(int position);
  bool step(int position);
  void place(int position);
  void unplace(int position);

  bool is_output_at(int position) const { return rules_.has_output && position == nodes_ - 1; }
  bool fits(int position) const;
  bool is_last_sink(int position) const;
  bool find_twins(int position);
  void list_orbits(int position);
  std::uint64_t ancestry(int op, std::uint32_t preds) const;

  CellLayout layout_;
  SpaceRules rules_;
  std::int64_t part_;
  std::int64_t parts_;
  std::int64_t prefixes_ = 0;
  int nodes_;
  int position_ = 0;
  bool running_ = false;
  Cell cell_;
  std::uint16_t succs_[kMaxNodes] = {};
  std::uint64_t ancestry_[kMaxNodes] = {};
  Level levels_[kMaxNodes];
};

// All codes of the space, sorted as unsigned numbers (the last word counts most). Smaller cells
// sort first, because the label of the last node sits on top.
std::vector<std::uint64_t> enumerate_sorted(const CellLayout& layout, const SpaceRules& rules,
                                            int threads);

}  // namespace a2v

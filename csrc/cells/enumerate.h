// SPDX-License-Identifier: Apache-2.0
//
// Orderly generation of a space: every isomorphism class once, as its canonical code, from a state of a
// few hundred bytes. So 10^8 cells stream through constant memory, and there is no table of cells seen.

#pragma once

#include <cstdint>
#include <vector>

#include "packed_cell.h"
#include "rules.h"

namespace a2v {

// Walks the space depth first and can stop and go on after any cell. `part` of `parts` walks a share of
// the tree; the shares are disjoint and together make the space.
class Enumerator {
 public:
  Enumerator(const CellLayout& layout, const SpaceRules& rules, int part = 0, int parts = 1);

  // Writes up to `limit` codes; fewer only when the space is exhausted.
  std::int64_t next(std::int64_t limit, std::uint64_t* codes);

 private:
  // Choices at one position: operation type, and the predecessors `needed | optional-subset`.
  struct Level {
    int op = 0;
    std::uint32_t subset = 0;    // current subset of `optional`
    std::uint32_t needed = 0;    // predecessors that cannot be left out
    std::uint32_t optional = 0;  // predecessors that can
    std::uint32_t open = 0;      // earlier nodes that still lack a successor
    int edges = 0;               // edges into earlier positions
    bool fresh = true;           // nothing tried yet
  };

  bool is_output_at(int position) const { return rules_.has_output && position == nodes_ - 1; }
  bool advance();
  void enter(int position);
  bool step(Level& level, int position) const;
  bool admissible(const Level& level, int position) const;
  bool has_tie() const;
  bool start_size(int nodes);

  CellLayout layout_;
  SpaceRules rules_;
  std::int64_t part_;
  std::int64_t parts_;
  std::int64_t prefixes_ = 0;
  int nodes_;
  int position_ = 0;
  bool running_ = false;
  Cell cell_;
  Level levels_[kMaxNodes];
};

// All codes of the space, sorted as unsigned numbers (the last word counts most). Smaller cells sort
// first, because the label of the last node sits on top.
std::vector<std::uint64_t> enumerate_sorted(const CellLayout& layout, const SpaceRules& rules,
                                            int threads);

}  // namespace a2v

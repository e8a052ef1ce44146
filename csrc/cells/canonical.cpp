// SPDX-License-Identifier: Apache-2.0
//
// Canonical form by greedy placement with search (the idea of McKay's individualisation-refinement,
// "Practical graph isomorphism", 1981, cut down to 16-node labelled DAGs).
//
// Most cells never branch: at almost every position one candidate is smallest in (rank, predecessor
// mask), or the tied ones are twins (same successors too), any of which will do. Only a tie between
// non-twins calls for colours, which are therefore made on demand; only a tie in colours too
// branches. A branch individualises the chosen node and refines again, and it is cut by
//   - comparing the sequence of keys so far with that of the best complete order;
//   - automorphisms: a complete order equal to the best maps one branch onto another, so one of
//   them
//     is enough there and in every enclosing branch whose prefix the automorphism fixes.
// Colours are hashes. A collision merges classes, for all labelings alike, so it costs time, not
// truth.

#include "canonical.h"

#include "parallel.h"

namespace a2v {

namespace {

using Colours = std::uint64_t[kMaxNodes];

constexpr std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  x ^= x >> 32;
  return x;
}

constexpr std::uint32_t bit(int v) { return 1u << v; }

class Canonicaliser {
 public:
  Canonicaliser(const CellLayout& layout, const Cell& cell) : cell_(cell), n_(layout.num_nodes) {
    successors(layout, cell, succs_);
  }

  Cell run() {
    Colours unused;
    extend(0, unused, false, /*smaller=*/true);
    Cell out;
    for (int p = 0; p < n_; ++p) {
      out.preds[p] = static_cast<std::uint16_t>(best_keys_[p]);
      out.label[p] =
          static_cast<std::uint8_t>((best_keys_[p] >> 16) + 1);  // rank 255 wraps to absent
    }
    return out;
  }

 private:
  // One open branching point: candidates that tie in everything, joined into orbits as
  // automorphisms are found.
  struct Branch {
    int position;
    std::uint32_t candidates;
    std::uint8_t parent[kMaxNodes];

    int root(int v) const {
      while (parent[v] != v) v = parent[v];
      return v;
    }
  };

  static constexpr int kNoJump = kMaxNodes;

  std::uint32_t key(int v) const {
    return static_cast<std::uint32_t>(static_cast<std::uint8_t>(cell_.label[v] - 1)) << 16 |
           mapped_[v];
  }

  void place(int v, int p) {
    placed_ |= bit(v);
    order_[p] = static_cast<std::uint8_t>(v);
    for (std::uint32_t m = succs_[v]; m != 0; m &= m - 1)
      mapped_[std::countr_zero(m)] =
          static_cast<std::uint16_t>(mapped_[std::countr_zero(m)] | bit(p));
  }

  void unplace(int v, int p) {
    placed_ &= ~bit(v);
    for (std::uint32_t m = succs_[v]; m != 0; m &= m - 1)
      mapped_[std::countr_zero(m)] =
          static_cast<std::uint16_t>(mapped_[std::countr_zero(m)] & ~bit(p));
  }

  // Unplaced nodes whose predecessors are all placed and whose key is smallest, one per set of
  // twins.
  std::uint32_t smallest_available(std::uint32_t& smallest) const {
    std::uint32_t tied = 0;
    smallest = ~0u;
    for (std::uint32_t m = ~placed_ & (bit(n_) - 1); m != 0; m &= m - 1) {
      const int v = std::countr_zero(m);
      if ((cell_.preds[v] & ~placed_) != 0) continue;
      const std::uint32_t k = key(v);
      if (k > smallest) continue;
      if (k < smallest) tied = 0;
      smallest = k;
      if (!has_twin(tied, v)) tied |= bit(v);
    }
    return tied;
  }

  // Candidates already share label and predecessors, so twins are those with equal successors.
  bool has_twin(std::uint32_t candidates, int v) const { return twin(candidates, v) >= 0; }

  int twin(std::uint32_t candidates, int v) const {
    for (; candidates != 0; candidates &= candidates - 1) {
      const int u = std::countr_zero(candidates);
      if (succs_[u] == succs_[v] && cell_.label[u] == cell_.label[v] &&
          cell_.preds[u] == cell_.preds[v])
        return u;
    }
    return -1;
  }

  int count_classes(const Colours& colours) const {
    int classes = 0;
    for (int v = 0; v < n_; ++v) {
      bool is_new = true;
      for (int u = 0; u < v; ++u) is_new = is_new && colours[u] != colours[v];
      classes += is_new;
    }
    return classes;
  }

  // Colour refinement: own colour, multiset of predecessor colours, multiset of successor colours,
  // until the partition stops getting finer.
  void refine(Colours& colours) const {
    for (int classes = count_classes(colours), before = 0; classes > before && classes < n_;) {
      Colours next;
      for (int v = 0; v < n_; ++v) {
        std::uint64_t sum = 0x9e3779b97f4a7c15u * colours[v];
        for (std::uint32_t m = cell_.preds[v]; m != 0; m &= m - 1)
          sum += mix(colours[std::countr_zero(m)] + 0x2545f4914f6cdd1du);
        for (std::uint32_t m = succs_[v]; m != 0; m &= m - 1)
          sum += mix(colours[std::countr_zero(m)] ^ 0xda942042e4dd58b5u);
        next[v] = mix(sum);
      }
      for (int v = 0; v < n_; ++v) colours[v] = next[v];
      before = classes;
      classes = count_classes(colours);
    }
  }

  void initial_colours(Colours& colours) const {
    for (int v = 0; v < n_; ++v) colours[v] = mix(0x632be59bd9b4e019u + cell_.label[v]);
    refine(colours);
  }

  // Keeps the tied candidates of the smallest colour; reports that colour.
  static std::uint32_t smallest_colour(const Colours& colours, std::uint32_t tied,
                                       std::uint64_t& smallest) {
    std::uint32_t kept = 0;
    smallest = ~std::uint64_t{0};
    for (; tied != 0; tied &= tied - 1) {
      const int v = std::countr_zero(tied);
      if (colours[v] > smallest) continue;
      if (colours[v] < smallest) kept = 0;
      smallest = colours[v];
      kept |= bit(v);
    }
    return kept;
  }

  // Records the key of position p. False when it shows that this order cannot be the smallest;
  // `smaller` says whether the prefix is already below the best order's.
  bool record(int p, std::uint32_t smallest, std::uint64_t colour, bool& smaller) {
    keys_[p] = smallest;
    key_colours_[p] = colour;
    if (smaller) return true;
    if (smallest != best_keys_[p]) {
      smaller = smallest < best_keys_[p];
      return smaller;
    }
    if (colour != best_colours_[p]) {
      smaller = colour < best_colours_[p];
      return smaller;
    }
    return true;
  }

  // Places positions from `first` on and searches below. Returns the position of the branch to fall
  // back to when an automorphism made the rest of this subtree redundant, else kNoJump.
  int extend(int first, const Colours& given, bool have_colours, bool smaller) {
    int p = first;
    int jump = kNoJump;
    Colours colours;
    if (have_colours) std::copy(given, given + n_, colours);
    for (;; ++p) {
      if (p == n_) {
        jump = complete(smaller);
        break;
      }
      std::uint32_t smallest = 0;
      std::uint64_t colour = 0;
      std::uint32_t tied = smallest_available(smallest);
      if ((tied & (tied - 1)) != 0) {
        if (!have_colours) initial_colours(colours);
        have_colours = true;
        tied = smallest_colour(colours, tied, colour);
      }
      if (!record(p, smallest, colour, smaller)) break;
      if ((tied & (tied - 1)) != 0) {
        jump = branch(p, tied, colours, smaller);
        break;
      }
      place(std::countr_zero(tied), p);
    }
    while (--p >= first) unplace(order_[p], p);
    return jump;
  }

  int branch(int p, std::uint32_t candidates, const Colours& colours, bool smaller) {
    Branch& here = branches_[depth_++];
    here.position = p;
    here.candidates = candidates;
    for (int v = 0; v < n_; ++v) here.parent[v] = static_cast<std::uint8_t>(v);
    int jump = kNoJump;
    std::uint32_t tried_roots = 0;
    for (std::uint32_t m = candidates; m != 0 && jump == kNoJump; m &= m - 1) {
      const int v = std::countr_zero(m);
      if (orbit_was_tried(here, tried_roots, v)) continue;
      tried_roots |= bit(v);
      Colours split;
      std::copy(colours, colours + n_, split);
      split[v] = mix(split[v] + 0x8ebc6af09c88c6e3u);
      refine(split);
      place(v, p);
      jump = extend(p + 1, split, true, smaller);
      unplace(v, p);
      smaller = false;  // a smaller prefix was completed below and is the best one now
      if (jump == p) jump = kNoJump;
    }
    --depth_;
    return jump;
  }

  static bool orbit_was_tried(const Branch& here, std::uint32_t tried, int v) {
    for (; tried != 0; tried &= tried - 1)
      if (here.root(std::countr_zero(tried)) == here.root(v)) return true;
    return false;
  }

  int complete(bool smaller) {
    if (smaller) {
      std::copy(keys_, keys_ + n_, best_keys_);
      std::copy(key_colours_, key_colours_ + n_, best_colours_);
      std::copy(order_, order_ + n_, best_order_);
      return kNoJump;
    }
    // Equal to the best order: node best_order_[p] -> node order_[p] is an automorphism.
    int image[kMaxNodes];
    for (int p = 0; p < n_; ++p) image[best_order_[p]] = order_[p];
    int apart = 0;
    while (apart < n_ && best_order_[apart] == order_[apart]) ++apart;
    for (int d = 0; d < depth_ && branches_[d].position <= apart; ++d) join(branches_[d], image);
    return apart;
  }

  void join(Branch& here, const int* image) const {
    for (std::uint32_t m = here.candidates; m != 0; m &= m - 1) {
      const int v = std::countr_zero(m);
      const int w =
          twin(here.candidates, image[v]);  // the image itself, or the twin that stands for it
      if (w >= 0) here.parent[here.root(v)] = static_cast<std::uint8_t>(here.root(w));
    }
  }

  const Cell& cell_;
  const int n_;
  std::uint16_t succs_[kMaxNodes];
  std::uint16_t mapped_[kMaxNodes] = {};  // predecessor masks in terms of positions
  std::uint32_t placed_ = 0;
  int depth_ = 0;  // open branches
  // Written before they are read; not cleared, because most cells need little of them.
  std::uint8_t order_[kMaxNodes];
  std::uint32_t keys_[kMaxNodes];
  std::uint64_t key_colours_[kMaxNodes];
  std::uint8_t best_order_[kMaxNodes];
  std::uint32_t best_keys_[kMaxNodes];
  std::uint64_t best_colours_[kMaxNodes];
  Branch branches_[kMaxNodes];
};

}  // namespace

Cell canonical_cell(const CellLayout& layout, const Cell& cell) {
  return Canonicaliser(layout, cell).run();
}

void canonical_codes(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                     int threads, std::uint64_t* out) {
  const int words = layout.words();
  parallel_for(count, 2048, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      pack_cell(layout, canonical_cell(layout, unpack_cell(layout, codes + b * words)),
                out + b * words);
  });
}

}  // namespace a2v

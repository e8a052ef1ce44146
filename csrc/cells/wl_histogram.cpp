// SPDX-License-Identifier: Apache-2.0
// See wl_histogram.h.

#include "wl_histogram.h"

#include <algorithm>

#include "node_colours.h"

namespace a2v {
namespace {

constexpr std::int64_t kInFlight = 16;  // cells whose look-ups overlap

// Cells of one layout on their way through the rounds, a few at a time.
class Colouring {
 public:
  Colouring(const CellLayout& layout, int depth)
      : layout_(layout),
        nodes_(static_cast<std::size_t>(kInFlight * layout.num_nodes)),
        tables_(static_cast<std::size_t>(depth), ColourTable(layout.num_nodes)),
        rows_(static_cast<std::size_t>(kInFlight * layout.num_nodes * (depth + 1))) {}

  // Rows of the next `count` cells in every round: row(cell, round)[node].
  void colour(const std::uint64_t* codes, std::int64_t count) {
    for (std::int64_t c = 0; c < count; ++c) {
      first_colours(layout_, codes + c * layout_.words(), node(c));
      keep(c, 0);
    }
    int round = 0;
    for (ColourTable& table : tables_) {
      ++round;
      for (std::int64_t c = 0; c < count; ++c) {
        next_colours(node(c), layout_.num_nodes, true, &next_[c]);
        for (int v = 0; v < layout_.num_nodes; ++v) table.prefetch(next_[c].hash[v]);
      }
      for (std::int64_t c = 0; c < count; ++c) {
        const int size = key_size(layout_.num_nodes);
        for (int v = 0; v < layout_.num_nodes; ++v) {
          ColourNode& colour = node(c)[v];
          colour.hash = next_[c].hash[v];
          colour.row = table.row_of(colour.hash, next_[c].keys + v * size);
        }
        keep(c, round);
      }
    }
  }

  const std::uint32_t* row(std::int64_t c, int round) const {
    return rows_.data() + place(c, round);
  }
  std::int64_t size(int round) const { return tables_[static_cast<std::size_t>(round - 1)].size(); }

 private:
  ColourNode* node(std::int64_t c) { return nodes_.data() + c * layout_.num_nodes; }
  std::int64_t place(std::int64_t c, int round) const {
    return (c * static_cast<std::int64_t>(tables_.size() + 1) + round) * layout_.num_nodes;
  }
  void keep(std::int64_t c, int round) {
    for (int v = 0; v < layout_.num_nodes; ++v)
      rows_[static_cast<std::size_t>(place(c, round) + v)] = node(c)[v].row;
  }

  CellLayout layout_;
  std::vector<ColourNode> nodes_;
  std::vector<ColourTable> tables_;  // of rounds 1 ..
  std::vector<std::uint32_t> rows_;
  NextColours next_[kInFlight];
};

// Appends the sorted colours of one round, equal ones counted together.
void append(std::uint32_t* colours, int count, WlHistograms* out) {
  std::sort(colours, colours + count);
  for (int i = 0; i < count; ++i) {
    if (i > 0 && colours[i] == colours[i - 1]) {
      ++out->counts.back();
    } else {
      out->colours.push_back(static_cast<std::int32_t>(colours[i]));
      out->counts.push_back(1);
    }
  }
}

}  // namespace

WlHistograms wl_histograms(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                           int depth) {
  Colouring colouring(layout, depth);
  WlHistograms out;
  // Colours carry their round in the last digit until all are known and rounds can be put in line.
  const auto rounds = static_cast<std::uint32_t>(depth + 1);
  out.starts.reserve(static_cast<std::size_t>(count + 1));
  out.starts.push_back(0);
  for (std::int64_t first = 0; first < count; first += kInFlight) {
    const std::int64_t cells = std::min(kInFlight, count - first);
    colouring.colour(codes + first * layout.words(), cells);
    for (std::int64_t c = 0; c < cells; ++c) {
      const std::uint32_t* labels = colouring.row(c, 0);
      for (std::uint32_t round = 0; round < rounds; ++round) {
        const std::uint32_t* rows = colouring.row(c, static_cast<int>(round));
        std::uint32_t colours[kMaxNodes];
        int present = 0;
        for (int v = 0; v < layout.num_nodes; ++v)
          if (labels[v] != 0) colours[present++] = (rows[v] - (round == 0)) * rounds + round;
        append(colours, present, &out);
      }
      out.starts.push_back(static_cast<std::int64_t>(out.colours.size()));
    }
  }
  std::vector<std::int64_t> offsets{0, layout.num_op_types};
  for (int round = 1; round <= depth; ++round)
    offsets.push_back(offsets.back() + colouring.size(round));
  for (std::int32_t& colour : out.colours) {
    const auto wide = static_cast<std::uint32_t>(colour);
    colour = static_cast<std::int32_t>(offsets[wide % rounds] + wide / rounds);
  }
  out.num_colours = offsets.back();
  return out;
}

}  // namespace a2v

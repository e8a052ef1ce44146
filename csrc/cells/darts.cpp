// SPDX-License-Identifier: Apache-2.0

#include "darts.h"

#include "graph_hash.h"

namespace a2v {

namespace {

constexpr int kFirstOpNode = 2;
constexpr int kOutputNode = 10;
constexpr std::uint8_t kFirstOpLabel =
    3;  // labels are operation type + 1; types 0, 1 are the inputs
constexpr std::uint8_t kOutputLabel = 11;
constexpr std::uint32_t kOutputPreds = 0b11'1111'1100;

// Nodes an operation reads when it reads genotype input `input`.
constexpr std::uint16_t source_mask(int input) {
  if (input < 2) return static_cast<std::uint16_t>(1u << input);
  return static_cast<std::uint16_t>(0b11u << (kFirstOpNode + 2 * (input - 2)));
}

DartsFault label_fault(const Cell& cell) {
  if (cell.label[0] != 1 || cell.label[1] != 2) return DartsFault::kInputLabels;
  if (cell.label[kOutputNode] != kOutputLabel) return DartsFault::kOutputLabel;
  for (int v = kFirstOpNode; v < kOutputNode; ++v)
    if (cell.label[v] < kFirstOpLabel || cell.label[v] >= kFirstOpLabel + kDartsOps)
      return DartsFault::kOpLabels;
  return DartsFault::kNone;
}

}  // namespace

void pack_darts(const DartsEdges& edges, std::uint64_t* words) {
  Cell cell;
  cell.label[0] = 1;
  cell.label[1] = 2;
  cell.label[kOutputNode] = kOutputLabel;
  cell.preds[kOutputNode] = kOutputPreds;
  for (int e = 0; e < kDartsEdges; ++e) {
    cell.preds[kFirstOpNode + e] = source_mask(edges[static_cast<std::size_t>(2 * e)]);
    cell.label[kFirstOpNode + e] =
        static_cast<std::uint8_t>(kFirstOpLabel + edges[static_cast<std::size_t>(2 * e + 1)]);
  }
  pack_cell(kDartsLayout, cell, words);
}

DartsFault unpack_darts(const std::uint64_t* words, DartsEdges& edges) {
  const Cell cell = unpack_cell(kDartsLayout, words);
  if (const DartsFault fault = label_fault(cell); fault != DartsFault::kNone) return fault;
  if (cell.preds[1] != 0) return DartsFault::kInputEdge;
  for (int e = 0; e < kDartsEdges; ++e) {
    const std::uint16_t preds = cell.preds[kFirstOpNode + e];
    if (preds == 0) return DartsFault::kNoSource;
    const int node = 2 + e / 2;  // of the genotype: it may read inputs below itself
    int input = 0;
    while (input < node && source_mask(input) != preds) ++input;
    if (input == node) return DartsFault::kSources;
    if (e % 2 == 1 && edges[static_cast<std::size_t>(2 * e - 2)] == input)
      return DartsFault::kSameInput;
    edges[static_cast<std::size_t>(2 * e)] = static_cast<std::uint8_t>(input);
    edges[static_cast<std::size_t>(2 * e + 1)] =
        static_cast<std::uint8_t>(cell.label[kFirstOpNode + e] - kFirstOpLabel);
  }
  return cell.preds[kOutputNode] == kOutputPreds ? DartsFault::kNone : DartsFault::kOutputEdges;
}

DartsFault released_darts_fault(const std::uint64_t* words) {
  const Cell cell = unpack_cell(kDartsLayout, words);
  if (const DartsFault fault = label_fault(cell); fault != DartsFault::kNone) return fault;
  for (int e = 0; e < kDartsEdges; ++e) {
    const std::uint32_t before_block = (1u << (kFirstOpNode + e - e % 2)) - 1;
    if ((cell.preds[kFirstOpNode + e] & before_block) == 0) return DartsFault::kNoSource;
  }
  return DartsFault::kNone;
}

void darts_hashes(const std::uint64_t* codes, std::int64_t count, int threads,
                  std::uint8_t* digests) {
  constexpr int kNames[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  graph_hashes<kDartsLayout.num_nodes>(kDartsLayout, kNames, codes, count, threads, digests);
}

}  // namespace a2v

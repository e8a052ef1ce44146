// SPDX-License-Identifier: Apache-2.0
//
// NAS-Bench-101: pruning, validity, the stored labelling, the size of the network.

#include "nasbench101.h"

#include <algorithm>

#include "graph_hash.h"

namespace a2v {

namespace {

constexpr int kNodes = kNasBench101.num_nodes;
constexpr int kInput = 0, kConv1x1 = 1, kConv3x3 = 2, kMaxPool = 3, kOutput = 4;

int last_present(const Cell& cell) {
  int v = kNodes - 1;
  while (v >= 0 && cell.label[v] == 0) --v;
  return v;
}

int op(const Cell& cell, int v) { return cell.label[v] - 1; }

// The nodes of `keep` in their order, everything else gone.
Cell induced(const Cell& cell, std::uint32_t keep) {
  Cell out;
  int position[kNodes] = {};
  int count = 0;
  for (std::uint32_t m = keep; m != 0; m &= m - 1) {
    const int v = std::countr_zero(m);
    position[v] = count;
    out.label[count] = cell.label[v];
    for (std::uint32_t p = cell.preds[v] & keep; p != 0; p &= p - 1)
      out.preds[count] =
          static_cast<std::uint16_t>(out.preds[count] | 1u << position[std::countr_zero(p)]);
    ++count;
  }
  return out;
}

// Rank of an operation in the order in which the benchmark lists them.
int listed_rank(int op_type) {
  return op_type == kConv3x3 ? 0 : op_type == kConv1x1 ? 1 : op_type == kMaxPool ? 2 : 3;
}

// Smaller edge bits first (the last column counts most), then operations from the front.
bool stored_before(const Cell& a, const Cell& b) {
  for (int v = kNodes - 1; v > 0; --v)
    if (a.preds[v] != b.preds[v]) return a.preds[v] < b.preds[v];
  for (int v = 0; v < kNodes; ++v)
    if (a.label[v] != b.label[v]) return listed_rank(op(a, v)) < listed_rank(op(b, v));
  return false;
}

// Tries every topological order of the inner nodes; at most 120.
struct LabellingSearch {
  const Cell& cell;
  int nodes;
  Cell best = cell;

  void place(Cell partial, std::uint32_t placed, const std::uint16_t* mapped, int p) {
    if (p == nodes) {
      if (stored_before(partial, best)) best = partial;
      return;
    }
    const std::uint32_t output = 1u << (nodes - 1);
    std::uint32_t rest = ((1u << nodes) - 1) & ~placed;
    if (p < nodes - 1) rest &= ~output;
    for (; rest != 0; rest &= rest - 1) {
      const int v = std::countr_zero(rest);
      if ((cell.preds[v] & ~placed) != 0) continue;
      std::uint16_t moved[kNodes];
      for (int w = 0; w < kNodes; ++w)
        moved[w] = static_cast<std::uint16_t>(mapped[w] | (cell.preds[w] >> v & 1u) << p);
      partial.label[p] = cell.label[v];
      partial.preds[p] = mapped[v];
      place(partial, placed | 1u << v, moved, p + 1);
    }
  }
};

// Convolution without bias, then batch normalisation with scale and offset.
std::int64_t conv_bn(std::int64_t size, std::int64_t in, std::int64_t out) {
  return size * size * in * out + 2 * out;
}

// Channels of each node: those that feed the output share its channels, the remainder going to the
// first of them; any other node has as many as its widest successor.
void vertex_channels(const Cell& cell, int nodes, std::int64_t in, std::int64_t out,
                     std::int64_t* channels) {
  const int last = nodes - 1;
  channels[0] = in;
  channels[last] = out;
  const std::uint32_t feeders = cell.preds[last] & ~1u;
  if (feeders == 0) return;
  const std::int64_t share = out / std::popcount(feeders);
  std::int64_t remainder = out % std::popcount(feeders);
  for (int v = 1; v < last; ++v) {
    channels[v] = 0;
    if ((feeders >> v & 1u) == 0) continue;
    channels[v] = share + (remainder > 0 ? 1 : 0);
    if (remainder > 0) --remainder;
  }
  for (int v = last - 1; v > 0; --v) {
    if ((feeders >> v & 1u) != 0) continue;
    for (int w = v + 1; w < last; ++w)
      if ((cell.preds[w] >> v & 1u) != 0) channels[v] = std::max(channels[v], channels[w]);
  }
}

std::int64_t module_parameters(const Cell& cell, int nodes, std::int64_t in, std::int64_t out) {
  std::int64_t channels[kNodes] = {};
  vertex_channels(cell, nodes, in, out, channels);
  std::int64_t total = 0;
  for (int v = 1; v < nodes; ++v) {
    if ((cell.preds[v] & 1u) != 0) total += conv_bn(1, in, channels[v]);  // projection of the input
    if (op(cell, v) == kConv3x3) total += conv_bn(3, channels[v], channels[v]);
    if (op(cell, v) == kConv1x1) total += conv_bn(1, channels[v], channels[v]);
  }
  return total;
}

}  // namespace

bool prune(const Cell& cell, Cell& out) {
  const int last = last_present(cell);
  if (last < 1) return false;
  std::uint32_t forward = 1;
  for (int v = 1; v <= last; ++v)
    if ((cell.preds[v] & forward) != 0) forward |= 1u << v;
  std::uint32_t backward = 1u << last;
  for (int v = last; v > 0; --v)
    if ((backward >> v & 1u) != 0) backward |= cell.preds[v];
  const std::uint32_t keep = forward & backward;
  if ((keep & 1u) == 0) return false;
  out = induced(cell, keep);
  return true;
}

NasBench101Fault judge(const Cell& cell, bool strict) {
  Cell pruned;
  if (!prune(cell, pruned)) return NasBench101Fault::kDisconnected;
  if (num_edges(kNasBench101, pruned) > kNasBench101Rules.max_edges)
    return NasBench101Fault::kTooManyEdges;
  // Not last_present(): a node kept in the middle may be absent, the last one never is.
  const int last = last_present(pruned);
  if (op(pruned, 0) != kInput) return NasBench101Fault::kFirstNotInput;
  if (op(pruned, last) != kOutput) return NasBench101Fault::kLastNotOutput;
  for (int v = 1; v < last; ++v)
    if (op(pruned, v) < kConv1x1 || op(pruned, v) > kMaxPool)
      return NasBench101Fault::kBadOperation;
  if (strict && pruned != cell) return NasBench101Fault::kPrunable;
  return NasBench101Fault::kNone;
}

Cell benchmark_labelling(const Cell& cell) {
  LabellingSearch search{cell, last_present(cell) + 1};
  const std::uint16_t mapped[kNodes] = {};
  search.place(Cell{}, 0, mapped, 0);
  return search.best;
}

std::int64_t num_parameters(const Cell& cell) {
  constexpr int kStacks = 3, kModulesPerStack = 3;
  constexpr std::int64_t kStemChannels = 128, kClasses = 10;
  const Cell stored = benchmark_labelling(cell);
  const int nodes = last_present(stored) + 1;
  std::int64_t in = kStemChannels;
  std::int64_t total = conv_bn(3, 3, kStemChannels);
  for (int stack = 0; stack < kStacks; ++stack) {
    const std::int64_t out = kStemChannels << stack;
    for (int module = 0; module < kModulesPerStack; ++module, in = out)
      total += module_parameters(stored, nodes, in, out);
  }
  return total + in * kClasses + kClasses;
}

void nasbench_hashes(const std::uint64_t* codes, std::int64_t count, int threads,
                     std::uint8_t* digests) {
  constexpr int kNames[] = {-1, 1, 0, 2, -2};  // inner operations by the benchmark's listing
  graph_hashes<kNodes>(kNasBench101, kNames, codes, count, threads, digests);
}

}  // namespace a2v

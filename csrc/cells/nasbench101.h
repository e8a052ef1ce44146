// SPDX-License-Identifier: Apache-2.0
//
// What the NAS-Bench-101 benchmark does with a cell: prune, judge, name and build it.
//
// Source: Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.

#pragma once

#include <cstdint>

#include "packed_cell.h"
#include "rules.h"

namespace a2v {

inline constexpr CellLayout kNasBench101{7, 5};
// Operation types: 0 input, 1 conv1x1-bn-relu, 2 conv3x3-bn-relu, 3 maxpool3x3, 4 output.
inline constexpr SpaceRules kNasBench101Rules{.num_inputs = 1,
                                              .has_output = true,
                                              .variable_size = true,
                                              .allow_dangling = false,
                                              .max_edges = 9};

// In the order in which the benchmark looks. The Python space words them; keep the two in step.
enum class NasBench101Fault : std::uint8_t {
  kNone = 0,
  kDisconnected,  // no path from the first node to the last present one
  kTooManyEdges,  // more than 9 after pruning
  kFirstNotInput,
  kLastNotOutput,
  kBadOperation,  // a node on a path is absent or carries input or output
  kPrunable,      // strict rule only: pruning changes the cell
};

// Removes nodes that lie on no path from node 0 to the last present node, and absent ones among
// them. False, and `out` untouched, when there is no path.
bool prune(const Cell& cell, Cell& out);

NasBench101Fault judge(const Cell& cell, bool strict);

// The labelling the benchmark stores: of all topological orders that of the smallest edge bits,
// then with the first operations in the order conv3x3, conv1x1, maxpool. `cell` must be strictly
// valid.
Cell benchmark_labelling(const Cell& cell);

// Trainable parameters of the benchmark's CIFAR-10 network of this cell. Channels that do not
// divide evenly are dealt by node number, so they are counted on the benchmark's own labelling.
// `cell` must be strictly valid.
std::int64_t num_parameters(const Cell& cell);

// The benchmark's hash of `count` strictly valid cells, 16 bytes each.
void nasbench_hashes(const std::uint64_t* codes, std::int64_t count, int threads,
                     std::uint8_t* digests);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The key of a node's next colour: what it is made of, as rows of the colours before.
#pragma once

#include <cstdint>

namespace a2v {

// A key is [own row, number of successors, number of neighbours, their rows], successors first;
// where both directions weigh the same, all neighbours count as successors.
constexpr int kKeyHeader = 3;

constexpr int key_size(int num_nodes) { return kKeyHeader + num_nodes - 1; }

}  // namespace a2v

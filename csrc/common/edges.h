// SPDX-License-Identifier: Apache-2.0
// Edge weights of a batch of cells, from dense matrices or straight from packed codes.
//
// Only the edge bits of a code are read (cells/packed_cell.h): its operations and the bits above do
// not matter here.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define A2V_EDGES_INLINE __host__ __device__ inline
#else
#define A2V_EDGES_INLINE inline
#endif

namespace a2v {

// Exactly one of the pointers is set.
template <class T>
struct Edges {
  const T* dense;             // [B, N, N], any weights, edge x -> y at [x, y]
  const std::int64_t* codes;  // [B, W]
  int words;                  // W
};

// Weight of x -> y in cell b of `num_nodes` nodes.
template <class T>
A2V_EDGES_INLINE T edge_weight(const Edges<T>& edges, int num_nodes, std::int64_t b, int x, int y) {
  if (edges.dense != nullptr) {
    return edges.dense[(b * num_nodes + x) * num_nodes + y];
  }
  const int bit = x + y * (y - 1) / 2;
  const bool present =
      x < y && ((edges.codes[b * edges.words + (bit >> 6)] >> (bit & 63)) & 1) != 0;
  return present ? T(1) : T(0);
}

}  // namespace a2v

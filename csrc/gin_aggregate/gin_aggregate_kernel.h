// SPDX-License-Identifier: Apache-2.0
// Body of the gin_aggregate kernels, compiled once for each instruction set. See gin_aggregate.h.
//
// Loops over blocks of channels in local arrays, which the compiler keeps in registers of whatever
// width the file's flags allow. Every channel is computed by the same operations in the same order
// whatever the block, so all instruction sets give the same bits.
#pragma once

#include "cells/packed_cell.h"
#include "common/simd.h"
#include "gin_aggregate/gin_aggregate.h"

namespace a2v::A2V_SIMD {
namespace {

// Channels of a block: eight registers of 32 bytes, then one of 64 bytes, then one by one.
template <class T>
constexpr int kWide = 256 / sizeof(T);
template <class T>
constexpr int kNarrow = 64 / sizeof(T);

// Lists of one direction, and the gates of its channels.
template <class T>
struct Direction {
  const int* begin;
  const int* node;
  const T* weight;
  const T* gate;  // [H] or null
};

template <class T>
inline Direction<T> direction(const GinAggregateParams<T>& p, const NeighbourLists<T>& lists,
                              int index) {
  const std::int64_t n = p.num_nodes;
  return {
      .begin = lists.begin + index * (n + 1),
      .node = lists.node + index * 2 * n * n,
      .weight = lists.weight + index * 2 * n * n,
      .gate = p.gates == nullptr ? nullptr : p.gates + static_cast<std::int64_t>(index) * p.width,
  };
}

// Appends the nodes with a weight other than zero among weights[0], weights[stride], ...
template <class T>
inline int append_row(const T* weights, std::int64_t stride, int n, int* node, T* weight,
                      int next) {
  for (int other = 0; other < n; ++other) {
    node[next] = other;
    weight[next] = weights[other * stride];
    next += weight[next] != 0;
  }
  return next;
}

// Appends the nodes whose bits are set.
template <class T>
inline int append_bits(std::uint32_t bits, int* node, T* weight, int next) {
  for (; bits != 0; bits &= bits - 1, ++next) {
    node[next] = __builtin_ctz(bits);
    weight[next] = 1;
  }
  return next;
}

// Masks of the nodes that an edge goes to and comes from, of one packed cell.
struct Masks {
  std::uint32_t to[kMaxNodes];
  std::uint32_t from[kMaxNodes];
};

inline Masks read_masks(const std::int64_t* code, int n) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(code);
  Masks masks = {};
  for (int y = 1; y < n; ++y) {
    masks.from[y] = get_bits(words, y * (y - 1) / 2, y);
    for (std::uint32_t bits = masks.from[y]; bits != 0; bits &= bits - 1) {
      masks.to[__builtin_ctz(bits)] |= 1U << y;
    }
  }
  return masks;
}

template <class T>
inline void list_neighbours(const GinAggregateParams<T>& p, std::int64_t b,
                            const NeighbourLists<T>& lists) {
  const int n = p.num_nodes;
  const int second = p.gates == nullptr ? 0 : 1;
  const std::int64_t stride = second * 2 * static_cast<std::int64_t>(n) * n;
  const bool packed = p.edges.dense == nullptr;
  const T* dense = packed ? nullptr : p.edges.dense + b * n * n;
  const Masks masks = packed ? read_masks(p.edges.codes + b * p.edges.words, n) : Masks{};
  int next[2] = {0, 0};
  for (int node = 0; node < n; ++node) {
    lists.begin[node] = next[0];
    lists.begin[second * (n + 1) + node] = next[second];
    if (p.successors) {
      next[0] = packed ? append_bits(masks.to[node], lists.node, lists.weight, next[0])
                       : append_row(dense + node * n, 1, n, lists.node, lists.weight, next[0]);
    }
    if (p.predecessors) {
      int* nodes = lists.node + stride;
      T* weights = lists.weight + stride;
      next[second] = packed ? append_bits(masks.from[node], nodes, weights, next[second])
                            : append_row(dense + node, n, n, nodes, weights, next[second]);
    }
  }
  lists.begin[n] = next[0];
  lists.begin[second * (n + 1) + n] = next[second];
}

// total[c] = sum of the neighbours of `node`; `x` points to the block's channels of node 0.
template <class T, int kWidth>
inline void collect(const Direction<T>& along, int node, const T* __restrict x, int width,
                    T (&total)[kWidth]) {
  for (int c = 0; c < kWidth; ++c) total[c] = 0;
  for (int e = along.begin[node]; e < along.begin[node + 1]; ++e) {
    const T weight = along.weight[e];
    const T* row = x + static_cast<std::int64_t>(along.node[e]) * width;
    for (int c = 0; c < kWidth; ++c) total[c] += weight * row[c];
  }
}

// to = (1 + eps) from + the neighbours of `from`, for the channels of one block. `gates` holds the
// gates of both directions, in the order of the lists.
template <class T, int kWidth>
inline void aggregate_block(const GinAggregateParams<T>& p, const Direction<T> (&along)[2],
                            const T* const (&gates)[2], const T* __restrict from, T* __restrict to,
                            int channel) {
  const T scale = T(1) + *p.eps;
  T total[kWidth];
  for (int node = 0; node < p.num_nodes; ++node) {
    const std::int64_t at = static_cast<std::int64_t>(node) * p.width + channel;
    collect<T, kWidth>(along[0], node, from + channel, p.width, total);
    if (gates[0] == nullptr) {
      for (int c = 0; c < kWidth; ++c) to[at + c] = scale * from[at + c] + total[c];
      continue;
    }
    for (int c = 0; c < kWidth; ++c) {
      to[at + c] = scale * from[at + c] + gates[0][channel + c] * total[c];
    }
    collect<T, kWidth>(along[1], node, from + channel, p.width, total);
    for (int c = 0; c < kWidth; ++c) to[at + c] += gates[1][channel + c] * total[c];
  }
}

// Adds the sums of one cell over its nodes. Within a cell in T, across cells in double.
template <class T, int kWidth>
inline void sum_block(const GinAggregateParams<T>& p, const Direction<T> (&along)[2],
                      const T* __restrict x, const T* __restrict grad, int channel, double* sums) {
  T neighbours[kWidth];
  T total[kWidth];
  for (int row = 0; row < kGinAggregateSums; ++row) {
    if (row < 2 && p.gates == nullptr) continue;
    for (int c = 0; c < kWidth; ++c) total[c] = 0;
    for (int node = 0; node < p.num_nodes; ++node) {
      const std::int64_t at = static_cast<std::int64_t>(node) * p.width + channel;
      if (row < 2) {
        collect<T, kWidth>(along[row], node, x + channel, p.width, neighbours);
        for (int c = 0; c < kWidth; ++c) total[c] += grad[at + c] * neighbours[c];
      } else {
        for (int c = 0; c < kWidth; ++c) total[c] += grad[at + c] * x[at + c];
      }
    }
    double* target = sums + static_cast<std::int64_t>(row) * p.width + channel;
    for (int c = 0; c < kWidth; ++c) target[c] += static_cast<double>(total[c]);
  }
}

// Calls work.template block<kWidth>(channel) until all channels are done.
template <class T, class Work>
inline void for_blocks(int width, const Work& work) {
  int c = 0;
  for (; c + kWide<T> <= width; c += kWide<T>) work.template block<kWide<T>>(c);
  for (; c + kNarrow<T> <= width; c += kNarrow<T>) work.template block<kNarrow<T>>(c);
  for (; c < width; ++c) work.template block<1>(c);
}

template <class T>
struct ForwardCell {
  const GinAggregateParams<T>& p;
  const Direction<T> (&along)[2];
  const T* x;
  T* out;

  template <int kWidth>
  void block(int channel) const {
    const T* const gates[2] = {along[0].gate, along[1].gate};
    aggregate_block<T, kWidth>(p, along, gates, x, out, channel);
  }
};

template <class T>
struct BackwardCell {
  const GinAggregateParams<T>& p;
  const Direction<T> (&along)[2];
  const T* x;
  const T* grad;
  T* x_grad;
  double* sums;

  // A (g2 * dout) + A^T (g1 * dout): successors get the gates of predecessors. Without gates there
  // is one list, of A + A^T or of one direction alone, which must then be walked the other way:
  // `list_neighbours` was given the directions exchanged.
  template <int kWidth>
  void block(int channel) const {
    const T* const gates[2] = {along[1].gate, along[0].gate};
    aggregate_block<T, kWidth>(p, along, gates, grad, x_grad, channel);
    sum_block<T, kWidth>(p, along, x, grad, channel, sums);
  }
};

template <class T>
void forward(const GinAggregateParams<T>& p, std::int64_t first, std::int64_t last,
             const NeighbourLists<T>& lists) {
  const std::int64_t cell = static_cast<std::int64_t>(p.num_nodes) * p.width;
  const Direction<T> along[2] = {direction(p, lists, 0), direction(p, lists, 1)};
  for (std::int64_t b = first; b < last; ++b) {
    list_neighbours(p, b, lists);
    for_blocks<T>(p.width, ForwardCell<T>{p, along, p.x + b * cell, p.out + b * cell});
  }
}

template <class T>
void backward(const GinAggregateParams<T>& p, std::int64_t first, std::int64_t last,
              const NeighbourLists<T>& lists, double* sums) {
  GinAggregateParams<T> reversed = p;
  if (p.gates == nullptr) {
    reversed.successors = p.predecessors;
    reversed.predecessors = p.successors;
  }
  const std::int64_t cell = static_cast<std::int64_t>(p.num_nodes) * p.width;
  const Direction<T> along[2] = {direction(p, lists, 0), direction(p, lists, 1)};
  for (std::int64_t b = first; b < last; ++b) {
    list_neighbours(reversed, b, lists);
    for_blocks<T>(p.width, BackwardCell<T>{p, along, p.x + b * cell, p.out_grad + b * cell,
                                           p.x_grad + b * cell, sums});
  }
}

}  // namespace
}  // namespace a2v::A2V_SIMD

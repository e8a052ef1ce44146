// SPDX-License-Identifier: Apache-2.0
// gin_aggregate: what a node of a GIN layer collects, for a batch of small graphs.
//
//   out = (1 + eps) x + A (g1 * x) + A^T (g2 * x)
//
// Node i adds its successors weighed by g1 and its predecessors weighed by g2, channel by channel.
// Gates act on channels and A on nodes, so g * (A x) = A (g * x), and the gradient of x is the same
// operation on the gradient of out with the gates exchanged:
//
//   dx = (1 + eps) dout + A (g2 * dout) + A^T (g1 * dout)
//   dg1[c] = sum_bi dout (A x),   dg2[c] = sum_bi dout (A^T x),   deps = sum dout x
//
// Plain PyTorch: arch2vec_fast/reference.py. A cell is 3.5 kB at N = 7 and H = 128, so its rows
// stay in the first-level cache while its edges are walked; memory traffic, one read and one write
// of [B, N, H], is what bounds large batches.
#pragma once

#include <cstdint>

#include "common/cuda_stream.h"
#include "common/edges.h"

namespace a2v {

// Contiguous arrays, owned and sized by the caller.
template <class T>
struct GinAggregateParams {
  std::int64_t num_cells;  // B
  int num_nodes;           // N
  int width;               // H
  Edges<T> edges;
  const T* eps;     // [1]
  const T* gates;   // [2, H]: g1, g2; null: both one
  bool successors;  // add A (g1 * x)
  bool predecessors;
  const T* x;         // [B, N, H]
  T* out;             // [B, N, H]; forward only
  const T* out_grad;  // [B, N, H]; the rest backward only
  T* x_grad;          // [B, N, H]
};

// Rows of the sums over cells and nodes that a backward pass makes for each channel: dg1, dg2 and
// deps. Those of the gates are zero where there are none.
constexpr int kGinAggregateSums = 3;

// Neighbours of every node of one cell, as lists: walking them costs a step an edge, not one a
// pair. Without gates both directions share list 0; with gates list 0 holds successors and list 1
// predecessors. Scratch of the CPU kernels; the caller owns the arrays.
template <class T>
struct NeighbourLists {
  int* begin;  // [2, N+1]
  int* node;   // [2, 2 N*N], and one more that is written before it is known to be an edge
  T* weight;   // the same
};

constexpr std::int64_t neighbour_list_size(std::int64_t nodes) { return 4 * nodes * nodes + 1; }

template <class T>
struct GinAggregateKernels {
  // Cells first .. last-1.
  void (*forward)(const GinAggregateParams<T>& params, std::int64_t first, std::int64_t last,
                  const NeighbourLists<T>& scratch);
  // The same, and adds the sums of its cells to `sums` [3, H].
  void (*backward)(const GinAggregateParams<T>& params, std::int64_t first, std::int64_t last,
                   const NeighbourLists<T>& scratch, double* sums);
};

// One an instruction set, for float and double.
template <class T>
GinAggregateKernels<T> gin_aggregate_scalar();
template <class T>
GinAggregateKernels<T> gin_aggregate_avx2();
template <class T>
GinAggregateKernels<T> gin_aggregate_avx512();

// On the GPU. `partial` is scratch of [partial_rows(B), 3, H] (common/partial_sums.h); `sums` [3,
// H].
template <class T>
void gin_aggregate_forward_cuda(const GinAggregateParams<T>& params, CudaStream stream);
template <class T>
void gin_aggregate_backward_cuda(const GinAggregateParams<T>& params, double* partial, T* sums,
                                 CudaStream stream);

}  // namespace a2v

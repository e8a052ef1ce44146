// SPDX-License-Identifier: Apache-2.0
// gin_aggregate on the GPU; formulas in gin_aggregate.h.
//
// Threads: one a channel, a group of up to 256 for one cell at a time. Neighbours of the lanes of a
// warp are neighbouring channels, so every load and store is one piece, and all lanes walk the same
// edges. Rows of a cell are read again for each edge from the first-level cache. Packed cells are
// first turned into masks of successors and predecessors in shared memory, so that a step is an
// edge; dense weights are walked pair by pair, absent edges skipped.
//
// Backward: a block owns one row of the partial sums (common/partial_sums.h) and adds its cells to
// it in order, in float64; a thread meets its own channels only.

#include "cells/packed_cell.h"
#include "common/device.cuh"
#include "common/launch.cuh"
#include "common/partial_sums.h"
#include "gin_aggregate/gin_aggregate.h"

namespace a2v {
namespace {

constexpr int kMostThreads = 256;

// Sums of the neighbours of one node, one channel.
template <class T>
struct Neighbours {
  T successors;
  T predecessors;
};

// Writes masks [2, 16] of cell b: nodes that an edge goes to, then those it comes from. Threads of
// the block share the work; the caller puts barriers around it.
template <class T>
__device__ void write_masks(const GinAggregateParams<T>& p, std::int64_t b, unsigned* masks) {
  const auto nodes = static_cast<unsigned>(p.num_nodes);
  for (unsigned i = threadIdx.x; i < 2 * nodes; i += blockDim.x) {
    const bool to = i < nodes;
    const int node = static_cast<int>(to ? i : i - nodes);
    unsigned mask = 0;
    for (int other = 0; other < p.num_nodes; ++other) {
      const T weight = to ? edge_weight(p.edges, p.num_nodes, b, node, other)
                          : edge_weight(p.edges, p.num_nodes, b, other, node);
      mask |= (weight != T(0) ? 1U : 0U) << static_cast<unsigned>(other);
    }
    masks[(to ? 0 : kMaxNodes) + node] = mask;
  }
}

// `x` points to the thread's channel of node 0 of cell b.
template <class T>
__device__ Neighbours<T> collect(const GinAggregateParams<T>& p, std::int64_t b, int node,
                                 const T* x, const unsigned* masks) {
  Neighbours<T> sum = {T(0), T(0)};
  if (p.edges.dense == nullptr) {
    for (unsigned bits = p.successors ? masks[node] : 0U; bits != 0; bits &= bits - 1) {
      sum.successors += x[static_cast<std::int64_t>(__ffs(static_cast<int>(bits)) - 1) * p.width];
    }
    for (unsigned bits = p.predecessors ? masks[kMaxNodes + node] : 0U; bits != 0;
         bits &= bits - 1) {
      sum.predecessors += x[static_cast<std::int64_t>(__ffs(static_cast<int>(bits)) - 1) * p.width];
    }
    return sum;
  }
  for (int other = 0; other < p.num_nodes; ++other) {
    const T to = p.successors ? edge_weight(p.edges, p.num_nodes, b, node, other) : T(0);
    const T from = p.predecessors ? edge_weight(p.edges, p.num_nodes, b, other, node) : T(0);
    const T* row = x + static_cast<std::int64_t>(other) * p.width;
    if (to != T(0)) sum.successors += to * *row;
    if (from != T(0)) sum.predecessors += from * *row;
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kMostThreads) forward_kernel(GinAggregateParams<T> p) {
  A2V_SHARED(unsigned[2 * kMaxNodes], masks);
  const std::int64_t b = blockIdx.x;
  if (p.edges.dense == nullptr) {
    write_masks(p, b, masks);
    __syncthreads();
  }
  const T scale = T(1) + *p.eps;
  for (int c = static_cast<int>(threadIdx.x); c < p.width; c += static_cast<int>(blockDim.x)) {
    const std::int64_t cell = b * p.num_nodes * p.width + c;
    const T g1 = p.gates == nullptr ? T(1) : p.gates[c];
    const T g2 = p.gates == nullptr ? T(1) : p.gates[p.width + c];
    for (int node = 0; node < p.num_nodes; ++node) {
      const Neighbours<T> sum = collect(p, b, node, p.x + cell, masks);
      const std::int64_t at = cell + static_cast<std::int64_t>(node) * p.width;
      p.out[at] = scale * p.x[at] + (g1 * sum.successors + g2 * sum.predecessors);
    }
  }
}

// What a thread adds up over the cells of its block's row for one channel.
struct ChannelSums {
  double successors;
  double predecessors;
  double self;
};

// One channel of one cell: writes its gradient and returns its share of the sums.
template <class T>
__device__ ChannelSums backward_channel(const GinAggregateParams<T>& p, std::int64_t b, int c,
                                        const unsigned* masks) {
  const T scale = T(1) + *p.eps;
  const T g1 = p.gates == nullptr ? T(1) : p.gates[c];
  const T g2 = p.gates == nullptr ? T(1) : p.gates[p.width + c];
  const std::int64_t cell = b * p.num_nodes * p.width + c;
  // dx = (1 + eps) dout + A (g2 * dout) + A^T (g1 * dout): the other direction counts where only
  // one does.
  GinAggregateParams<T> reversed = p;
  reversed.successors = p.predecessors;
  reversed.predecessors = p.successors;
  ChannelSums sums = {0, 0, 0};
  for (int node = 0; node < p.num_nodes; ++node) {
    const std::int64_t at = cell + static_cast<std::int64_t>(node) * p.width;
    const T grad = p.out_grad[at];
    const Neighbours<T> back = collect(reversed, b, node, p.out_grad + cell, masks);
    p.x_grad[at] = scale * grad + (g2 * back.successors + g1 * back.predecessors);
    sums.self += static_cast<double>(grad * p.x[at]);
    if (p.gates != nullptr) {
      const Neighbours<T> ahead = collect(p, b, node, p.x + cell, masks);
      sums.successors += static_cast<double>(grad * ahead.successors);
      sums.predecessors += static_cast<double>(grad * ahead.predecessors);
    }
  }
  return sums;
}

template <class T>
__global__ void __launch_bounds__(kMostThreads)
    backward_kernel(GinAggregateParams<T> p, double* partial) {
  A2V_SHARED(unsigned[2 * kMaxNodes], masks);
  double* row = partial + std::int64_t{blockIdx.x} * kGinAggregateSums * p.width;
  for (std::int64_t b = blockIdx.x; b < p.num_cells; b += gridDim.x) {
    if (p.edges.dense == nullptr) {
      __syncthreads();
      write_masks(p, b, masks);
      __syncthreads();
    }
    const bool first = b == static_cast<std::int64_t>(blockIdx.x);
    for (int c = static_cast<int>(threadIdx.x); c < p.width; c += static_cast<int>(blockDim.x)) {
      const ChannelSums sums = backward_channel(p, b, c, masks);
      row[c] = sums.successors + (first ? 0.0 : row[c]);
      row[p.width + c] = sums.predecessors + (first ? 0.0 : row[p.width + c]);
      row[2 * p.width + c] = sums.self + (first ? 0.0 : row[2 * p.width + c]);
    }
  }
}

template <class T>
dim3 threads_of(const GinAggregateParams<T>& params) {
  const int warps = (params.width + kWarpSize - 1) / kWarpSize;
  const int most = kMostThreads / kWarpSize;
  return dim3(static_cast<unsigned>((warps < most ? warps : most) * kWarpSize));
}

}  // namespace

template <class T>
void gin_aggregate_forward_cuda(const GinAggregateParams<T>& params, CudaStream stream) {
  if (params.num_cells == 0 || params.width == 0) return;
  launch(forward_kernel<T>, dim3(static_cast<unsigned>(params.num_cells)), threads_of(params), 0,
         stream, params);
}

template <class T>
void gin_aggregate_backward_cuda(const GinAggregateParams<T>& params, double* partial, T* sums,
                                 CudaStream stream) {
  if (params.width == 0) return;
  const std::int64_t rows = partial_rows(params.num_cells);
  if (rows != 0) {
    launch(backward_kernel<T>, dim3(static_cast<unsigned>(rows)), threads_of(params), 0, stream,
           params, partial);
  }
  const std::int64_t width = std::int64_t{kGinAggregateSums} * params.width;
  sum_partials(partial, rows, width, 0, width, sums, stream);
}

template void gin_aggregate_forward_cuda(const GinAggregateParams<float>&, CudaStream);
template void gin_aggregate_forward_cuda(const GinAggregateParams<double>&, CudaStream);
template void gin_aggregate_backward_cuda(const GinAggregateParams<float>&, double*, float*,
                                          CudaStream);
template void gin_aggregate_backward_cuda(const GinAggregateParams<double>&, double*, double*,
                                          CudaStream);

}  // namespace a2v

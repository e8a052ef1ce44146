// SPDX-License-Identifier: Apache-2.0
// Body of gin_encode's kernels; one file an instruction set includes it. See simd.h.
//
// A layer takes its rows in tiles: gather and weigh the neighbours' rows into a tile in the
// scratch, then its products (common/gemm.h) from tile to tile. Only the last one leaves the
// first-level cache. `Products` says in which numbers they are computed: Float32 below, Bfloat16 in
// gin_encode_bf16.h.
#pragma once

#include "common/gemm.h"
#include "gin_encode/encode_rows.h"

namespace a2v::A2V_SIMD {

struct Float32 {
  using Element = float;
  static void store(float* p, V16 a) { A2V_SIMD::store(p, a); }

  // sink(row, panel, sixteen values) of x [rows, depth] and a weight as `pack` leaves it.
  template <class Sink>
  static A2V_INLINE void multiply(const float* x, std::ptrdiff_t stride, int rows, int depth,
                                  const float* weight, int panels, Sink&& sink) {
    A2V_SIMD::multiply(ConstPanels{x, stride}, rows, depth,
                       ConstPanels{weight, std::ptrdiff_t{depth} * kLanes}, panels, sink);
  }
};

inline const float* row_at(const float* table, std::uint32_t row, int width) {
  return table + static_cast<std::ptrdiff_t>(row) * width;
}

A2V_INLINE V16 sum_rows(const float* table, const std::uint32_t* rows, int count, int width) {
  V16 sum = zero();
  for (int i = 0; i < count; ++i) {
    sum = sum + load(row_at(table, rows[i], width));
  }
  return sum;
}

// One panel of a row: scale * own + g1 * (sum over successors) + g2 * (sum over predecessors), or
// what the first linear makes of it.
A2V_INLINE V16 aggregate(const LayerJob& job, const std::uint32_t* key, int panel, int width) {
  const float* table = job.in + panel * kLanes;
  const std::uint32_t* rows = key + kKeyHeader;
  const int successors = static_cast<int>(key[1]);
  const V16 own = load(row_at(table, key[0], width));
  const V16 forwards = sum_rows(table, rows, successors, width);
  if (job.gates == nullptr) {
    const V16 sum = fma(set1(job.scale), own, forwards);
    return job.entry == nullptr ? sum : relu(sum + load(job.entry + panel * kLanes));
  }
  const int others = static_cast<int>(key[2]) - successors;
  const V16 backwards = sum_rows(table, rows + successors, others, width);
  const float* gates = job.gates + panel * kLanes;
  const V16 sum = fma(load(gates), forwards, set1(job.scale) * own);
  return fma(load(gates + width), backwards, sum);
}

// Sixteen columns of a tile's rows are kTilePanel elements.
constexpr std::ptrdiff_t kTilePanel = kEncodeTile * kLanes;

// sink(row, panel, how a row begins).
template <class Sink>
A2V_INLINE void gather(const LayerJob& job, std::int64_t first, int rows, Sink&& sink) {
  const int panels = panels_of(job.width);
  for (int r = 0; r < rows; ++r) {
    const std::uint32_t* key = job.keys + (first + r) * job.key_size;
    for (int p = 0; p < panels; ++p) {
      sink(r, p, aggregate(job, key, p, panels * kLanes));
    }
  }
}

// sink(row, panel, x W^T + b) of a tile x.
template <class Products, class Sink>
A2V_INLINE void apply(const EncodeLinear& linear, const typename Products::Element* x, int rows,
                      Sink&& sink) {
  Products::multiply(x, kTilePanel, rows, linear.in, linear.weight, panels_of(linear.out),
                     [&](int row, int panel, V16 product) {
                       sink(row, panel, product + load(linear.bias + panel * kLanes));
                     });
}

template <class Products>
void layer_tile(const LayerJob& job, std::int64_t first, int rows) {
  using Element = typename Products::Element;
  const int hidden = panels_of(job.hidden) * kLanes;
  const std::ptrdiff_t widest = panels_of(job.width < job.hidden ? job.hidden : job.width);
  auto* from = reinterpret_cast<Element*>(job.scratch);
  auto* to = reinterpret_cast<Element*>(job.scratch + widest * kTilePanel);
  float* states = job.states == nullptr ? nullptr : job.states + first * hidden;
  // Into a tile, and the layer's last values into the table of states as well.
  const auto into = [&](Element* tile, int row, int panel, V16 y, bool last) {
    Products::store(tile + panel * kTilePanel + row * kLanes, y);
    if (last && states != nullptr) {
      store(states + row * hidden + panel * kLanes, y);
    }
  };
  gather(job, first, rows,
         [&](int row, int panel, V16 y) { into(from, row, panel, y, job.num_linears == 0); });
  for (int k = 0; k < job.num_linears; ++k) {
    apply<Products>(job.linears[k], from, rows, [&](int row, int panel, V16 y) {
      into(to, row, panel, relu(y), k + 1 == job.num_linears);
    });
    Element* swapped = from;
    from = to;
    to = swapped;
  }
  if (job.product != nullptr) {
    const int width = panels_of(job.out->out) * kLanes;
    float* product = job.product + first * width;
    apply<Products>(*job.out, from, rows, [&](int row, int panel, V16 y) {
      store(product + row * width + panel * kLanes, y);
    });
  }
}

template <class Products>
void encode_layer(const LayerJob& job) {
  for (std::int64_t first = 0; first < job.num_rows; first += kEncodeTile) {
    const std::int64_t left = job.num_rows - first;
    layer_tile<Products>(job, first, left < kEncodeTile ? static_cast<int>(left) : kEncodeTile);
  }
}

inline void encode_readout(const ReadoutJob& job) {
  const int width = panels_of(job.width) * kLanes;
  for (int column = 0; column < job.width; column += kLanes) {
    const V16 sum = sum_rows(job.table + column, job.rows, job.count, width) * set1(job.factor);
    if (job.width - column >= kLanes) {
      store(job.out + column, sum);
    } else {
      store_first(job.out + column, sum, job.width - column);
    }
  }
}

}  // namespace a2v::A2V_SIMD

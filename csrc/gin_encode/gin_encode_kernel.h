// SPDX-License-Identifier: Apache-2.0
// Body of gin_encode's kernels; one file an instruction set includes it. See simd.h.
//
// A layer takes its rows in tiles: gather and weigh the neighbours' rows into a tile in the
// scratch, then its products (common/gemm.h, common/sparse_rows.h) from tile to tile. Only the last
// one leaves the second-level cache. `Products` says in which numbers they are computed: Float32
// below, Bfloat16 in gin_encode_bf16.h.
#pragma once

#include "common/gemm.h"
#include "common/sparse_rows.h"
#include "gin_encode/encode_rows.h"

namespace a2v::A2V_SIMD {

// Sixteen columns of a tile's rows are kTilePanel elements.
constexpr std::ptrdiff_t kTilePanel = kEncodeTile * kLanes;

struct Float32 {
  using Element = float;
  static void store(float* p, V16 a) { A2V_SIMD::store(p, a); }

  // sink(row, panel, sixteen values) of a tile's rows and the weight of `linear`. The way that
  // they take, by how many zeros there are, does not show in the bits.
  template <class Sink>
  static A2V_INLINE void multiply(const EncodeLinear& linear, const float* x, int rows, float* room,
                                  Sink&& sink) {
    const ConstPanels left{x, kTilePanel};
    const ConstPanels right{linear.weight, std::ptrdiff_t{linear.in} * kLanes};
    const int panels = panels_of(linear.out);
    if (linear.skips_zeros) {
      multiply_rectified(left, rows, linear.in, right, panels, room, sink);
      return;
    }
    A2V_SIMD::multiply(left, rows, linear.in, right, panels, sink);
  }
};

inline const float* row_at(const float* table, std::uint32_t row, int width) {
  return table + static_cast<std::ptrdiff_t>(row) * width;
}

// sums[i] += panel i of each of the rows.
template <int Count>
A2V_INLINE void add_rows(const float* table, const std::uint32_t* rows, int count, int width,
                         V16 (&sums)[Count]) {
  for (int i = 0; i < count; ++i) {
    const float* row = row_at(table, rows[i], width);
#pragma GCC unroll 4
    for (int q = 0; q < Count; ++q) {
      sums[q] = sums[q] + load(row + q * kLanes);
    }
  }
}

// `Count` panels of a row: scale * own + g1 * (sum over successors) + g2 * (sum over
// predecessors), or what the first linear makes of it. sink(panel, value).
template <int Count, class Sink>
A2V_INLINE void aggregate(const LayerJob& job, const std::uint32_t* key, int panel, int width,
                          Sink&& sink) {
  const float* table = job.in + panel * kLanes;
  const std::uint32_t* rows = key + kKeyHeader;
  const int successors = static_cast<int>(key[1]);
  const float* own = row_at(table, key[0], width);
  const V16 scale = set1(job.scale);
  V16 forwards[Count]{};
  add_rows(table, rows, successors, width, forwards);
  if (job.gates == nullptr) {
#pragma GCC unroll 4
    for (int q = 0; q < Count; ++q) {
      const V16 sum = fma(scale, load(own + q * kLanes), forwards[q]);
      const std::ptrdiff_t column = (panel + q) * kLanes;
      sink(panel + q, job.entry == nullptr ? sum : relu(sum + load(job.entry + column)));
    }
    return;
  }
  V16 backwards[Count]{};
  add_rows(table, rows + successors, static_cast<int>(key[2]) - successors, width, backwards);
#pragma GCC unroll 4
  for (int q = 0; q < Count; ++q) {
    const float* gates = job.gates + (panel + q) * kLanes;
    const V16 sum = fma(load(gates), forwards[q], scale * load(own + q * kLanes));
    sink(panel + q, fma(load(gates + width), backwards[q], sum));
  }
}

// Asks for the rows that a row is made of: they lie anywhere in a table of several megabytes.
A2V_INLINE void prefetch_rows(const float* table, const std::uint32_t* key, int width) {
  const auto prefetch = [&](std::uint32_t index) {
    const float* row = row_at(table, index, width);
    for (int column = 0; column < width; column += kLanes) {
      __builtin_prefetch(row + column);
    }
  };
  prefetch(key[0]);
  const int neighbours = static_cast<int>(key[2]);
  for (int i = 0; i < neighbours; ++i) {
    prefetch(key[kKeyHeader + i]);
  }
}

// sink(row, panel, how a row begins).
template <class Sink>
A2V_INLINE void gather(const LayerJob& job, std::int64_t first, int rows, Sink&& sink) {
  constexpr int kTogether = 4;
  constexpr int kAhead = 3;  // rows
  const int panels = panels_of(job.width);
  const int width = panels * kLanes;
  for (int r = 0; r < rows; ++r) {
    const std::uint32_t* key = job.keys + (first + r) * job.key_size;
    if (r + kAhead < rows) {
      prefetch_rows(job.in, key + kAhead * job.key_size, width);
    }
    const auto into_row = [&](int panel, V16 value) { sink(r, panel, value); };
    int p = 0;
    for (; p + kTogether <= panels; p += kTogether) {
      aggregate<kTogether>(job, key, p, width, into_row);
    }
    for (; p < panels; ++p) {
      aggregate<1>(job, key, p, width, into_row);
    }
  }
}

// sink(row, panel, x W^T + b) of a tile x.
template <class Products, class Sink>
A2V_INLINE void apply(const EncodeLinear& linear, const typename Products::Element* x, int rows,
                      float* room, Sink&& sink) {
  Products::multiply(linear, x, rows, room, [&](int row, int panel, V16 product) {
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
  float* room = job.scratch + 2 * widest * kTilePanel;
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
    apply<Products>(job.linears[k], from, rows, room, [&](int row, int panel, V16 y) {
      into(to, row, panel, relu(y), k + 1 == job.num_linears);
    });
    Element* swapped = from;
    from = to;
    to = swapped;
  }
  if (job.product != nullptr) {
    const int width = panels_of(job.out->out) * kLanes;
    float* product = job.product + first * width;
    apply<Products>(*job.out, from, rows, room, [&](int row, int panel, V16 y) {
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
    V16 sums[1]{};
    add_rows(job.table + column, job.rows, job.count, width, sums);
    const V16 result = sums[0] * set1(job.factor);
    if (job.width - column >= kLanes) {
      store(job.out + column, result);
    } else {
      store_first(job.out + column, result, job.width - column);
    }
  }
}

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// Small matrix products in registers, over the panel layout.
//
// A matrix [R, W] in panels is [W/16][R][16]: columns in groups of 16, the rows of a group one
// after the other, W padded up with zeros. One layout serves as left factor (a row's values are
// broadcast, 16 of them contiguous), as right factor of weight gradients, for column statistics
// and for sums over rows. A weight W [out, in] enters a product as right factor B, that is
//
//   x W^T:  B [in, out],  panels [out/16][in][16], by pack_transposed
//   y W:    B [out, in],  panels [in/16][out][16], by pack_rows.
//
// A block of kBlockRows rows and kBlockPanels panels stays in registers over the whole depth; every
// sum runs over the depth in order, whatever the blocks are, so results do not depend on them.
#pragma once

#include <cstddef>

#include "common/simd.h"

namespace a2v::A2V_SIMD {

#if defined(A2V_SIMD_AVX512)
constexpr int kBlockRows = 6;  // 24 accumulators, 4 of B, embedded broadcasts of A: 28 of 32
constexpr int kBlockPanels = 4;
constexpr int kOuterRows = 8;
constexpr int kOuterPanels = 2;
#elif defined(A2V_SIMD_AVX2)
constexpr int kBlockRows = 6;  // 12 accumulators, 2 of B, 1 of A: 15 of 16 registers
constexpr int kBlockPanels = 1;
constexpr int kOuterRows = 6;
constexpr int kOuterPanels = 1;
#else
constexpr int kBlockRows = 2;
constexpr int kBlockPanels = 1;
constexpr int kOuterRows = 2;
constexpr int kOuterPanels = 1;
#endif

constexpr int panels_of(int width) { return (width + kLanes - 1) / kLanes; }

// A matrix in panels: element (row, column) at data[(column / 16) * stride + row * 16 + column %
// 16].
struct Panels {
  float* data;
  std::ptrdiff_t stride;  // floats from panel to panel, at least 16 * rows
};
struct ConstPanels {
  const float* data;
  std::ptrdiff_t stride;

  ConstPanels(const float* first, std::ptrdiff_t panel_stride)
      : data(first), stride(panel_stride) {}
  ConstPanels(const Panels& panels) : data(panels.data), stride(panels.stride) {}
};

// acc = A[row .. row + Rows - 1, 0 .. depth - 1] B[:, panel .. panel + Count - 1].
template <int Rows, int Count>
A2V_INLINE void multiply_block(ConstPanels a, int row, int depth, ConstPanels b, int panel,
                               V16 (&acc)[Rows][Count]) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      acc[r][q] = zero();
    }
  }
  const float* right = b.data + panel * b.stride;
  for (int start = 0; start < depth; start += kLanes) {
    const float* left = a.data + (start / kLanes) * a.stride + row * kLanes;
    const int count = depth - start < kLanes ? depth - start : kLanes;
    for (int k = 0; k < count; ++k, right += kLanes) {
      V16 value[Count];
#pragma GCC unroll 16
      for (int q = 0; q < Count; ++q) {
        value[q] = load(right + q * b.stride);
      }
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const V16 factor = set1(left[r * kLanes + k]);
#pragma GCC unroll 16
        for (int q = 0; q < Count; ++q) {
          acc[r][q] = fma(factor, value[q], acc[r][q]);
        }
      }
    }
  }
}

template <int Rows, int Count, class Sink>
A2V_INLINE void multiply_rows(ConstPanels a, int row, int depth, ConstPanels b, int panel,
                              Sink&& sink) {
  V16 acc[Rows][Count];
  multiply_block<Rows, Count>(a, row, depth, b, panel, acc);
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      sink(row + r, panel + q, acc[r][q]);
    }
  }
}

// The last `count` < Rows rows.
template <int Rows, int Count, class Sink>
A2V_INLINE void multiply_rest(ConstPanels a, int row, int count, int depth, ConstPanels b,
                              int panel, Sink&& sink) {
  if constexpr (Rows > 1) {
    if (count == Rows - 1) {
      multiply_rows<Rows - 1, Count>(a, row, depth, b, panel, sink);
    } else {
      multiply_rest<Rows - 1, Count>(a, row, count, depth, b, panel, sink);
    }
  }
}

template <int Count, class Sink>
A2V_INLINE void multiply_panels(ConstPanels a, int rows, int depth, ConstPanels b, int panel,
                                Sink&& sink) {
  int row = 0;
  for (; row + kBlockRows <= rows; row += kBlockRows) {
    multiply_rows<kBlockRows, Count>(a, row, depth, b, panel, sink);
  }
  multiply_rest<kBlockRows, Count>(a, row, rows - row, depth, b, panel, sink);
}

// sink(row, panel, sixteen values) of A [rows, depth] B [depth, 16 * panels], panel by panel.
template <class Sink>
A2V_INLINE void multiply(ConstPanels a, int rows, int depth, ConstPanels b, int panels,
                         Sink&& sink) {
  int panel = 0;
  for (; panel + kBlockPanels <= panels; panel += kBlockPanels) {
    multiply_panels<kBlockPanels>(a, rows, depth, b, panel, sink);
  }
  if constexpr (kBlockPanels > 1) {
    for (; panel < panels; ++panel) {
      multiply_panels<1>(a, rows, depth, b, panel, sink);
    }
  }
}

template <int Rows, int Count, class Sink>
A2V_INLINE void outer_block(ConstPanels y, int column, ConstPanels x, int panel, int rows,
                            Sink&& sink) {
  V16 acc[Rows][Count];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      acc[r][q] = zero();
    }
  }
  // Blocks do not cross a panel of y.
  const float* left = y.data + (column / kLanes) * y.stride + column % kLanes;
  const float* right = x.data + panel * x.stride;
  for (int row = 0; row < rows; ++row, left += kLanes, right += kLanes) {
    V16 value[Count];
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      value[q] = load(right + q * x.stride);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const V16 factor = set1(left[r]);
#pragma GCC unroll 16
      for (int q = 0; q < Count; ++q) {
        acc[r][q] = fma(factor, value[q], acc[r][q]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int q = 0; q < Count; ++q) {
      sink(column + r, panel + q, acc[r][q]);
    }
  }
}

// The sixteen columns of a panel of y in blocks of kOuterRows, the rest (16 % kOuterRows) last.
template <int Count, class Sink>
A2V_INLINE void outer_panel(ConstPanels y, int column, ConstPanels x, int panel, int rows,
                            Sink&& sink) {
  constexpr int kRest = kLanes % kOuterRows;
  for (int c = 0; c + kOuterRows <= kLanes; c += kOuterRows) {
    outer_block<kOuterRows, Count>(y, column + c, x, panel, rows, sink);
  }
  if constexpr (kRest > 0) {
    outer_block<kRest, Count>(y, column + kLanes - kRest, x, panel, rows, sink);
  }
}

// sink(column of y, panel of x, sixteen values) of Y^T X over `rows` rows: the gradient of a weight
// [out, in] from the gradient Y of its output and its input X. Columns of the last panel of y
// beyond its width are handed over as well.
template <class Sink>
A2V_INLINE void outer(ConstPanels y, int y_panels, ConstPanels x, int x_panels, int rows,
                      Sink&& sink) {
  for (int p = 0; p < y_panels; ++p) {
    int panel = 0;
    for (; panel + kOuterPanels <= x_panels; panel += kOuterPanels) {
      outer_panel<kOuterPanels>(y, p * kLanes, x, panel, rows, sink);
    }
    if constexpr (kOuterPanels > 1) {
      for (; panel < x_panels; ++panel) {
        outer_panel<1>(y, p * kLanes, x, panel, rows, sink);
      }
    }
  }
}

// weight [out, in] row-major to B = W, panels [in/16][out][16], zeros beyond `in`; `stride` floats
// from panel to panel.
inline void pack_rows(const float* weight, int out, int in, float* packed, std::ptrdiff_t stride) {
  for (int start = 0; start < in; start += kLanes, packed += stride) {
    const int count = in - start < kLanes ? in - start : kLanes;
    for (int o = 0; o < out; ++o) {
      const float* from = weight + static_cast<std::ptrdiff_t>(o) * in + start;
      store(packed + o * kLanes, count == kLanes ? load(from) : load_first(from, count));
    }
  }
}

inline void pack_rows(const float* weight, int out, int in, float* packed) {
  pack_rows(weight, out, in, packed, static_cast<std::ptrdiff_t>(out) * kLanes);
}

// weight [out, in] row-major to B = W^T, panels [out/16][in][16], zeros beyond `out`.
inline void pack_transposed(const float* weight, int out, int in, float* packed) {
  for (int start = 0; start < out; start += kLanes) {
    const int count = out - start < kLanes ? out - start : kLanes;
    for (int k = 0; k < in; ++k, packed += kLanes) {
      const float* from = weight + static_cast<std::ptrdiff_t>(start) * in + k;
      for (int o = 0; o < count; ++o) {
        packed[o] = from[static_cast<std::ptrdiff_t>(o) * in];
      }
      for (int o = count; o < kLanes; ++o) {
        packed[o] = 0.0F;
      }
    }
  }
}

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// gp on one search, for the instruction set of the including file.
//
// extend takes new points in passes of kGpRows over its panels. Histogram products come first, by
// colour: the candidates that hold a colour of a new point are listed, so a row costs as many steps
// as it has matches. Then, panel by panel: features times features in registers, the kernel, and
// forward substitution against the rows above, which the panel has in one stream. Bound by
// D + M multiply-adds for each new row and candidate; a pass reads each panel once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/functions.h"
#include "common/gemm.h"
#include "common/simd.h"
#include "gp/gp.h"

namespace a2v::A2V_SIMD {
namespace gp_detail {

constexpr int kRows = kBlockRows;     // rows of V in registers
constexpr int kGroup = kBlockPanels;  // panels of features multiplied at a time
static_assert(kGpRows % kRows == 0 && kRows <= 8 && kGroup <= 4);

// The workspace of one pass over `rows` new points, `known` rows above them.
struct Pass {
  int known;
  int rows;
  const std::int64_t* points;  // [rows] candidates
  float inverse_length;        // sqrt(5) / length scale
  float weight;
  float* similar;   // [kGpRows][chunk] histogram products
  float* features;  // panels [D / 16][rows][16] of the new points
  float* norms;     // [kGpRows]
  float* values;    // [kGpRows][kGroup][16] kernel
  float* factor;    // for each block of kRows: [known + its first row][kRows], -L
  float* corner;    // for each block: [kRows][kRows] -L, 1 / L on the diagonal
};

inline const float* feature(const GpExtendParams& params, std::int64_t candidate) {
  return params.panels + candidate / kGpLanes * params.num_features * kGpLanes +
         candidate % kGpLanes;
}

// Histogram products of the new points with candidates first .. first + count - 1.
inline void add_histograms(const GpExtendParams& params, const Pass& pass, std::int64_t first,
                           std::int64_t count) {
  for (int r = 0; r < pass.rows; ++r) {
    float* into = pass.similar + static_cast<std::ptrdiff_t>(r) * count;
    for (std::int64_t q = 0; q < count; q += kLanes) {
      store(into + q, zero());
    }
    const std::int64_t point = pass.points[r];
    for (std::int64_t e = params.starts[point]; e < params.starts[point + 1]; ++e) {
      const std::int64_t begin = params.holder_starts[params.colours[e]];
      const std::int64_t end = params.holder_starts[params.colours[e] + 1];
      std::int64_t low = begin;
      for (std::int64_t high = end; low < high;) {  // the first holder within the chunk
        const std::int64_t middle = low + (high - low) / 2;
        if (params.holders[middle] < first) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      const float weight = params.weights[e];
      for (; low < end && params.holders[low] < first + count; ++low) {
        into[params.holders[low] - first] += weight * params.holder_weights[low];
      }
    }
  }
}

inline void pack_points(const GpExtendParams& params, const Pass& pass) {
  const int width = params.num_features;
  for (int r = 0; r < pass.rows; ++r) {
    const std::int64_t point = pass.points[r];
    const float* from = feature(params, point);
    for (int d = 0; d < width; ++d) {
      pass.features[(d / kLanes * pass.rows + r) * kLanes + d % kLanes] = from[d * kLanes];
    }
    pass.norms[r] = params.norms[point];
  }
}

inline void pack_factor(const float* factor, std::ptrdiff_t stride, const Pass& pass) {
  float* next = pass.factor;
  float* corner = pass.corner;
  for (int block = 0; block < pass.rows; block += kRows) {
    const int above = pass.known + block;
    for (int j = 0; j < above + kRows; ++j) {
      for (int r = 0; r < kRows; ++r) {
        const bool real = block + r < pass.rows && j <= above + r;
        const float value = real ? factor[(above + r) * stride + j] : 0.0F;
        if (j < above) {
          *next++ = -value;
        } else {
          *corner++ = j == above + r && real ? 1.0F / value : -value;
        }
      }
    }
  }
}

// The kernel of the new points with one panel, from products of features.
A2V_INLINE V16 kernel_value(const Pass& pass, int row, V16 product, V16 norms, V16 similar) {
  const V16 doubled = product + product;
  const V16 square = max(zero(), (set1(pass.norms[row]) + norms) - doubled);
  const V16 a = sqrt(square) * set1(pass.inverse_length);
  const V16 near = fma(a, fma(a, set1(1.0F / 3.0F), set1(1.0F)), set1(1.0F)) * exp(zero() - a);
  return fma(set1(pass.weight), near - similar, similar);
}

// Rows known .. known + rows - 1 of V in one panel: values - L V above, divided by the diagonal.
A2V_INLINE void substitute(const Pass& pass, const float* values, std::ptrdiff_t stride,
                           float* solved, float* explained) {
  const float* factor = pass.factor;
  const float* corner = pass.corner;
  V16 square = load(explained);
  for (int block = 0; block < pass.rows; block += kRows) {
    const int count = pass.rows - block < kRows ? pass.rows - block : kRows;
    const int above = pass.known + block;
    V16 acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      acc[r] = r < count ? load(values + (block + r) * stride) : zero();
    }
    const float* column = solved;
    for (int j = 0; j < above; ++j, column += kLanes, factor += kRows) {
      const V16 v = load(column);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        acc[r] = fma(set1(factor[r]), v, acc[r]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kRows; ++j, corner += kRows) {
      acc[j] = acc[j] * set1(corner[j]);
#pragma GCC unroll 8
      for (int r = j + 1; r < kRows; ++r) {
        acc[r] = fma(set1(corner[r]), acc[j], acc[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (r < count) {
        store(solved + (above + r) * kLanes, acc[r]);
        square = fma(acc[r], acc[r], square);
      }
    }
  }
  store(explained, square);
}

template <int Count>
inline void extend_panels(const GpExtendParams& params, const Pass& pass, std::int64_t panel,
                          const float* similar, std::ptrdiff_t chunk, float* solved,
                          float* explained) {
  const std::ptrdiff_t panel_floats = static_cast<std::ptrdiff_t>(params.num_features) * kLanes;
  const ConstPanels left(pass.features, static_cast<std::ptrdiff_t>(pass.rows) * kLanes);
  const ConstPanels right(params.panels + panel * panel_floats, panel_floats);
  const float* norms = params.norms + panel * kLanes;
  multiply_panels<Count>(left, pass.rows, params.num_features, right, 0,
                         [&](int row, int p, V16 product) {
                           const V16 other = load(similar + row * chunk + p * kLanes);
                           store(pass.values + (row * Count + p) * kLanes,
                                 kernel_value(pass, row, product, load(norms + p * kLanes), other));
                         });
  for (int p = 0; p < Count; ++p) {
    substitute(pass, pass.values + p * kLanes, Count * kLanes,
               solved + p * static_cast<std::ptrdiff_t>(params.capacity) * kLanes,
               explained + p * kLanes);
  }
}

}  // namespace gp_detail

void gp_extend(const GpExtendParams& params, std::int64_t search, std::int64_t first_panel,
               std::int64_t last_panel, float* workspace) {
  using namespace gp_detail;
  const std::int64_t most = params.num_points;
  const std::int64_t count = (last_panel - first_panel) * kLanes;
  const std::ptrdiff_t panel_rows = static_cast<std::ptrdiff_t>(params.capacity) * kLanes;
  float* solved = params.solved + search * params.num_panels * panel_rows;
  float* explained = params.explained + search * params.num_panels * kLanes;
  Pass pass{};
  pass.inverse_length = 2.23606797749979F * params.kernel[2 * search];
  pass.weight = params.kernel[2 * search + 1];
  pass.similar = workspace;
  pass.features = pass.similar + static_cast<std::ptrdiff_t>(kGpRows) * count;
  pass.norms = pass.features +
               static_cast<std::ptrdiff_t>(panels_of(params.num_features)) * kLanes * kGpRows;
  pass.values = pass.norms + kGpRows;
  pass.corner = pass.values + kGpRows * kGroup * kLanes;
  pass.factor = pass.corner + kGpRows * kRows;
  const int last = static_cast<int>(params.last[search]);
  for (int row = static_cast<int>(params.first[search]); row < last; row += kGpRows) {
    pass.known = row;
    pass.rows = last - row < kGpRows ? last - row : kGpRows;
    pass.points = params.rows + search * most + row;
    add_histograms(params, pass, first_panel * kLanes, count);
    pack_points(params, pass);
    pack_factor(params.factor + search * most * most, most, pass);
    std::int64_t panel = first_panel;
    for (; panel + kGroup <= last_panel; panel += kGroup) {
      extend_panels<kGroup>(params, pass, panel, pass.similar + (panel - first_panel) * kLanes,
                            count, solved + panel * panel_rows, explained + panel * kLanes);
    }
    for (; panel < last_panel; ++panel) {
      extend_panels<1>(params, pass, panel, pass.similar + (panel - first_panel) * kLanes, count,
                       solved + panel * panel_rows, explained + panel * kLanes);
    }
  }
}

void gp_score(const GpAcquireParams& params, std::int64_t search, std::int64_t first_panel,
              std::int64_t last_panel, float* scores) {
  const float* coefficients = params.coefficients + search * params.num_points;
  const auto points = static_cast<int>(params.counts[search]);
  const V16 scale = set1(params.scale[search] * params.scale[search]);
  const V16 target = set1(params.target[search]);
  for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
    const std::int64_t at = search * params.num_panels + panel;
    const float* column = params.solved + at * params.capacity * kLanes;
    V16 part[4] = {zero(), zero(), zero(), zero()};  // in four sums, which do not wait
    for (int j = 0; j < points; ++j, column += kLanes) {
      part[j % 4] = fma(set1(coefficients[j]), load(column), part[j % 4]);
    }
    const V16 mean = (part[0] + part[1]) + (part[2] + part[3]);
    const V16 left = set1(1.0F) - load(params.explained + at * kLanes);
    const V16 variance = max(set1(kGpLeastVariance), left) * scale;
    store(scores + (panel - first_panel) * kLanes, log_improvement(mean, sqrt(variance), target));
    if (params.mean != nullptr) {
      const std::int64_t rest = params.num_candidates - panel * kLanes;
      const int lanes = rest < kLanes ? static_cast<int>(rest) : kLanes;
      const std::ptrdiff_t out = search * params.num_candidates + panel * kLanes;
      store_first(params.mean + out, mean, lanes);
      store_first(params.variance + out, variance, lanes);
    }
  }
}

}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// gp on one search, for the instruction set of the including file.
//
// extend takes new points in passes of kGpRows over its panels. Panel by panel: products of
// histograms, of features in registers, the kernel, and forward substitution against the rows
// above, which the panel has in one stream. Histograms are sparse: a table has one line for each
// colour of the new points, their weights side by side, so a candidate adds up one line an entry
// for eight points at once. Low colours are common (`spaces.wl_histogram` numbers them by round)
// and just looked up; of the others, hardly any of which two cells share, a filter tells most off.
// The mean is summed while the panel is in cache. Bound by D + M multiply-adds for each new row and
// candidate, or by memory: a pass reads each panel once.
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

constexpr int kSimilar = 8;  // points whose histograms are multiplied at a time
static_assert(kGpRows % kSimilar == 0);
using Similar = float __attribute__((vector_size(4 * kSimilar)));
constexpr std::int32_t kCommon = 2048;  // colours below it are looked up without asking the filter
constexpr int kFilterWords = 1024;      // 64 Ki bits, which stay in the first-level cache

// The workspace of one pass over `rows` new points, `known` rows above them.
struct Pass {
  int known;
  int rows;
  bool last;
  const std::int64_t* points;  // [rows] candidates
  float inverse_length;        // sqrt(5) / length scale
  float weight;
  const float* coefficients;
  std::int32_t* lines;                 // of `table`, one a colour; 0 where no point has it
  std::uint64_t filter[kFilterWords];  // a bit is set for each colour of the points
  float* table;     // [lines][kGpRows] weights of colours in the points, zeros in line 0
  float* features;  // panels [D / 16][rows][16] of the new points
  float* norms;     // [kGpRows]
  float* similar;   // [kGroup][kGpRows][16] histogram products
  float* values;    // [kGpRows][kGroup][16] kernel
  float* factor;    // for each block of kRows: [known + its first row][kRows], -L
  float* corner;    // for each block: [kRows][kRows] -L, 1 / L on the diagonal
};

inline const float* feature(const GpExtendParams& params, std::int64_t candidate) {
  return params.panels + candidate / kGpLanes * params.num_features * kGpLanes +
         candidate % kGpLanes;
}

inline void clear_line(float* line) {
  for (int r = 0; r < kGpRows; ++r) {
    line[r] = 0.0F;
  }
}

// Into the second-level cache. Panels lie apart, at each the processor's own prefetching begins
// anew, and a candidate's few hundred numbers are over before it has caught up.
A2V_INLINE void fetch(const float* line) { __builtin_prefetch(line, 0, 2); }

A2V_INLINE bool may_occur(const Pass& pass, std::int32_t colour) {
  return (pass.filter[colour >> 6 & (kFilterWords - 1)] >> (colour & 63) & 1) != 0;
}

inline void list_colours(const GpExtendParams& params, Pass& pass) {
  std::int32_t count = 1;
  clear_line(pass.table);
  for (std::uint64_t& word : pass.filter) {
    word = 0;
  }
  for (int r = 0; r < pass.rows; ++r) {
    const std::int64_t point = pass.points[r];
    for (std::int64_t e = params.starts[point]; e < params.starts[point + 1]; ++e) {
      const std::int32_t colour = params.colours[e];
      std::int32_t& line = pass.lines[colour];
      if (line == 0) {
        line = count++;
        pass.filter[colour >> 6 & (kFilterWords - 1)] |= std::uint64_t{1} << (colour & 63);
        clear_line(pass.table + std::ptrdiff_t{line} * kGpRows);
      }
      pass.table[std::ptrdiff_t{line} * kGpRows + r] += params.weights[e];
    }
  }
}

inline void forget_colours(const GpExtendParams& params, const Pass& pass) {
  for (int r = 0; r < pass.rows; ++r) {
    const std::int64_t point = pass.points[r];
    for (std::int64_t e = params.starts[point]; e < params.starts[point + 1]; ++e) {
      pass.lines[params.colours[e]] = 0;
    }
  }
}

A2V_INLINE void add_entry(const GpExtendParams& params, const Pass& pass, int row,
                          std::int64_t entry, Similar* sum) {
  const std::ptrdiff_t line = pass.lines[params.colours[entry]];
  Similar weights;
  __builtin_memcpy(&weights, pass.table + line * kGpRows + row, sizeof weights);
  *sum += params.weights[entry] * weights;
}

// Products of the histograms of the new points with those of a panel's candidates: [kGpRows][16].
// features: of the panel after, fetched meanwhile.
inline void multiply_histograms(const GpExtendParams& params, const Pass& pass, std::int64_t panel,
                                const float* features, float* similar) {
  for (int row = 0; row < pass.rows; row += kSimilar) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::int64_t candidate = panel * kLanes + lane;
      for (int d = lane; row == 0 && d < params.num_features; d += kLanes) {
        fetch(features + d * kLanes);
      }
      Similar sum = {};
      if (candidate < params.num_candidates) {
        const std::int64_t end = params.starts[candidate + 1];
        std::int64_t e = params.starts[candidate];
        for (; e < end && params.colours[e] < kCommon; ++e) {
          add_entry(params, pass, row, e, &sum);
        }
        for (; e < end; ++e) {
          if (may_occur(pass, params.colours[e])) {
            add_entry(params, pass, row, e, &sum);
          }
        }
      }
      for (int r = 0; r < kSimilar; ++r) {
        similar[(row + r) * kLanes + lane] = sum[r];
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
// ahead: floats to the panel after, which is fetched meanwhile.
A2V_INLINE void substitute(const Pass& pass, const float* values, std::ptrdiff_t stride,
                           std::ptrdiff_t ahead, float* solved, float* explained) {
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
      if (block == 0) {
        fetch(column + ahead);
      }
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

// The sum of `count` rows of a panel times their coefficients.
A2V_INLINE V16 weighted_sum(const float* column, const float* coefficients, int count) {
  V16 part[4] = {zero(), zero(), zero(), zero()};  // four sums, which do not wait for each other
  int j = 0;
  for (; j + 4 <= count; j += 4) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      part[k] = fma(set1(coefficients[j + k]), load(column + (j + k) * kLanes), part[k]);
    }
  }
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) {
    if (j + k < count) {
      part[k] = fma(set1(coefficients[j + k]), load(column + (j + k) * kLanes), part[k]);
    }
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

template <int Count>
inline void extend_panels(const GpExtendParams& params, const Pass& pass, std::int64_t panel,
                          std::int64_t last_panel, float* solved, float* explained, float* mean) {
  const std::ptrdiff_t panel_floats = static_cast<std::ptrdiff_t>(params.num_features) * kLanes;
  const ConstPanels left(pass.features, static_cast<std::ptrdiff_t>(pass.rows) * kLanes);
  const ConstPanels right(params.panels + panel * panel_floats, panel_floats);
  const float* norms = params.norms + panel * kLanes;
  const std::ptrdiff_t ahead = panel + 2 * Count <= last_panel ? Count : 0;
  for (int p = 0; p < Count; ++p) {
    multiply_histograms(params, pass, panel + p, params.panels + (panel + p + ahead) * panel_floats,
                        pass.similar + p * kGpRows * kLanes);
  }
  multiply_panels<Count>(
      left, pass.rows, params.num_features, right, 0, [&](int row, int p, V16 product) {
        const V16 similar = load(pass.similar + (p * kGpRows + row) * kLanes);
        store(pass.values + (row * Count + p) * kLanes,
              kernel_value(pass, row, product, load(norms + p * kLanes), similar));
      });
  const std::ptrdiff_t panel_rows = static_cast<std::ptrdiff_t>(params.capacity) * kLanes;
  for (int p = 0; p < Count; ++p) {
    float* column = solved + (panel + p) * panel_rows;
    substitute(pass, pass.values + p * kLanes, Count * kLanes, ahead * panel_rows, column,
               explained + (panel + p) * kLanes);
    if (pass.last) {
      store(mean + (panel + p) * kLanes,
            weighted_sum(column, pass.coefficients, pass.known + pass.rows));
    }
  }
}

}  // namespace gp_detail

void gp_extend(const GpExtendParams& params, std::int64_t search, std::int64_t first_panel,
               std::int64_t last_panel, float* workspace, std::int32_t* lines) {
  using namespace gp_detail;
  const std::int64_t most = params.num_points;
  float* solved = params.solved + search * params.num_panels * params.capacity * kLanes;
  float* explained = params.explained + search * params.num_panels * kLanes;
  float* mean = params.mean + search * params.num_panels * kLanes;
  Pass pass{};
  pass.inverse_length = 2.23606797749979F * params.kernel[2 * search];
  pass.weight = params.kernel[2 * search + 1];
  pass.coefficients = params.coefficients + search * most;
  pass.lines = lines;
  pass.table = workspace;
  pass.features = pass.table + kGpRows * (kGpRows * params.most_entries + 1);
  pass.norms = pass.features +
               static_cast<std::ptrdiff_t>(panels_of(params.num_features)) * kLanes * kGpRows;
  pass.similar = pass.norms + kGpRows;
  pass.values = pass.similar + kGpRows * kGroup * kLanes;
  pass.corner = pass.values + kGpRows * kGroup * kLanes;
  pass.factor = pass.corner + kGpRows * kRows;
  const int last = static_cast<int>(params.last[search]);
  for (int row = static_cast<int>(params.first[search]); row < last; row += kGpRows) {
    pass.known = row;
    pass.last = last - row <= kGpRows;
    pass.rows = pass.last ? last - row : kGpRows;
    pass.points = params.rows + search * most + row;
    list_colours(params, pass);
    pack_points(params, pass);
    pack_factor(params.factor + search * most * most, most, pass);
    std::int64_t panel = first_panel;
    for (; panel + kGroup <= last_panel; panel += kGroup) {
      extend_panels<kGroup>(params, pass, panel, last_panel, solved, explained, mean);
    }
    for (; panel < last_panel; ++panel) {
      extend_panels<1>(params, pass, panel, last_panel, solved, explained, mean);
    }
    forget_colours(params, pass);
  }
}

void gp_score(const GpAcquireParams& params, std::int64_t search, std::int64_t first_panel,
              std::int64_t last_panel, float* scores) {
  const V16 scale = set1(params.scale[search] * params.scale[search]);
  const V16 target = set1(params.target[search]);
  for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
    const std::int64_t at = (search * params.num_panels + panel) * kLanes;
    const V16 mean = load(params.mean + at);
    const V16 left = set1(1.0F) - load(params.explained + at);
    const V16 variance = max(set1(kGpLeastVariance), left) * scale;
    store(scores + (panel - first_panel) * kLanes, log_improvement(mean, sqrt(variance), target));
    if (params.means != nullptr) {
      const std::int64_t rest = params.num_candidates - panel * kLanes;
      const int lanes = rest < kLanes ? static_cast<int>(rest) : kLanes;
      const std::ptrdiff_t out = search * params.num_candidates + panel * kLanes;
      store_first(params.means + out, mean, lanes);
      store_first(params.variances + out, variance, lanes);
    }
  }
}

}  // namespace a2v::A2V_SIMD

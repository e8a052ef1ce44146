// SPDX-License-Identifier: Apache-2.0
// What every instruction set shares: codes of points and queries, boxes, the bound's slack, the
// exact distance and the list of the best. See nearest_latent.h.

#include "nearest_latent/nearest_latent.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "common/cpu_features.h"
#include "nearest_latent/latent_order.h"

namespace a2v {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kCodeMax = 255.0;

LatentFrame frame_of(const LatentPoints& points) {
  const double* fields = points.frame + points.dim;
  return {.step = fields[0], .error = fields[1], .largest_norm = fields[2]};
}

// Lowest value of each dim, and the widest range of any.
double extent(std::int64_t num_points, int dim, const float* points, double* low) {
  float lowest[kMaxLatentDim];
  float highest[kMaxLatentDim];
  std::copy_n(points, dim, lowest);
  std::copy_n(points, dim, highest);
  for (std::int64_t i = 1; i < num_points; ++i) {
    for (int d = 0; d < dim; ++d) {
      lowest[d] = std::min(lowest[d], points[i * dim + d]);
      highest[d] = std::max(highest[d], points[i * dim + d]);
    }
  }
  double range = 0;
  for (int d = 0; d < dim; ++d) {
    low[d] = lowest[d];
    range = std::max(range, static_cast<double>(highest[d]) - lowest[d]);
  }
  return range;
}

// Codes of all points, a dim after the other; returns the largest |x - x'|^2.
double encode_columns(std::int64_t num_points, int dim, const float* points, const double* low,
                      double step, std::uint8_t* columns) {
  constexpr std::int64_t kPiece = 64;  // so that rows are read from the first-level cache
  const double per_step = 1 / step;
  double largest = 0;
  for (std::int64_t first = 0; first < num_points; first += kPiece) {
    const std::int64_t count = std::min(kPiece, num_points - first);
    double off[kPiece] = {};
    for (int d = 0; d < dim; ++d) {
      const float* values = points + first * dim + d;
      std::uint8_t* codes = columns + d * num_points + first;
      for (std::int64_t i = 0; i < count; ++i) {
        const double offset = values[i * dim] - low[d];
        const auto code = static_cast<std::int32_t>(std::min(offset * per_step + 0.5, kCodeMax));
        codes[i] = static_cast<std::uint8_t>(code);
        const double miss = offset - code * step;
        off[i] += miss * miss;
      }
    }
    largest = std::max(largest, *std::max_element(off, off + count));
  }
  return largest;
}

// Brings codes into their order and blocks and adds norms; returns the largest |u|^2.
float place_codes(std::int64_t num_points, int dim, const LatentPacking& packing) {
  const int quads = num_quads(dim);
  const std::int64_t places = num_blocks(num_points) * kBlockPoints;
  std::fill_n(packing.codes, places * 4 * quads, std::uint8_t{0});
  float largest = 0;
  for (std::int64_t place = 0; place < num_points; ++place) {
    const std::uint8_t* column = packing.columns + packing.order[place];
    std::uint8_t* lane =
        packing.codes + (place / kBlockPoints * quads * kBlockPoints + place % kBlockPoints) * 4;
    std::int32_t norm = 0;
    for (int d = 0; d < dim; ++d, column += num_points) {
      lane[d / 4 * (4 * kBlockPoints) + d % 4] = *column;
      norm += *column * *column;
    }
    packing.norms[place] = static_cast<float>(norm);
    largest = std::max(largest, packing.norms[place]);
  }
  std::fill(packing.norms + num_points, packing.norms + places,
            std::numeric_limits<float>::infinity());
  return largest;
}

// Box `child` of the boxes [kFan] of one tile or region.
struct Box {
  float* boxes;
  std::int64_t child;

  float& low(int d) const { return boxes[d * 2 * kFan + child]; }
  float& high(int d) const { return boxes[(d * 2 + 1) * kFan + child]; }
};

// The box of places first .. last-1.
void box_of_points(std::int64_t first, std::int64_t last, int dim, const float* points,
                   const std::int32_t* order, Box box) {
  float low[kMaxLatentDim];  // side by side, unlike in the box
  float high[kMaxLatentDim];
  std::fill_n(low, dim, std::numeric_limits<float>::infinity());
  std::fill_n(high, dim, -std::numeric_limits<float>::infinity());
  for (std::int64_t place = first; place < last; ++place) {
    const float* point = points + std::int64_t{order[place]} * dim;
    // Rows come from all over memory: halves the time.
    __builtin_prefetch(points + std::int64_t{order[std::min(place + 8, last - 1)]} * dim);
    for (int d = 0; d < dim; ++d) {
      low[d] = std::min(low[d], point[d]);
      high[d] = std::max(high[d], point[d]);
    }
  }
  for (int d = 0; d < dim; ++d) {
    box.low(d) = low[d];
    box.high(d) = high[d];
  }
}

void make_boxes(std::int64_t num_points, int dim, const float* points, const std::int32_t* order,
                float* boxes) {
  const std::int64_t tiles = num_tiles(num_points);
  const std::int64_t length = std::int64_t{2} * kFan * dim;
  std::fill_n(boxes, (tiles + num_regions(num_points)) * length, 0.0F);
  for (std::int64_t group = 0; group < num_groups(num_points); ++group) {
    const std::int64_t first = group * kGroupPoints;
    box_of_points(first, std::min(first + kGroupPoints, num_points), dim, points, order,
                  {boxes + group / kFan * length, group % kFan});
  }
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const float* groups = boxes + tile * length;
    const std::int64_t count = std::min<std::int64_t>(kFan, num_groups(num_points) - tile * kFan);
    const Box box{boxes + (tiles + tile / kFan) * length, tile % kFan};
    for (int d = 0; d < dim; ++d, groups += 2 * kFan) {
      box.low(d) = *std::min_element(groups, groups + count);
      box.high(d) = *std::max_element(groups + kFan, groups + kFan + count);
    }
  }
}

float distance_of(std::uint64_t key) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(key >> 32));
}

// The definition: in order of the dims, one rounding an operation. The build forbids fusing them.
float distance(const float* point, const float* query, int dim) {
  float sum = 0;
  for (int d = 0; d < dim; ++d) {
    const float difference = point[d] - query[d];
    sum += difference * difference;
  }
  return sum;
}

// An order that is not pack_latents' may name what is no point.
bool is_left_out(const LatentPoints& points, const std::uint64_t* visited, std::int64_t point) {
  return point < 0 || point >= points.num_points ||
         (visited != nullptr && (visited[point / 64] >> (point % 64) & 1) != 0);
}

// The score below which a point can be nearer than the k-th best. Slack: relative (D + 4) 2^-23 for
// the roundings of both float32 distances, D 10^-37 for underflow even where denormals are flushed,
// 2^-22 of the terms for the float32 score; the double arithmetic here is 10^6 times finer and is
// covered by the same. Rounded up to the next float, because the scan compares with <.
float limit_of(const LatentPoints& points, const LatentQuery& query, std::uint64_t worst) {
  if (worst == kNoKey || !(query.radius < kInfinity)) {
    return std::numeric_limits<float>::infinity();
  }
  const LatentFrame frame = frame_of(points);
  const double slack = 1 + (points.dim + 4) * 0x1p-23;
  const double distance = std::sqrt(distance_of(worst) * slack + points.dim * 1e-37);
  const double reach = (distance + query.radius) / frame.step * (1 + 1e-9);
  const double rounding = 0x1p-22 * (frame.largest_norm + query.norm);
  const auto limit = static_cast<float>(reach * reach - query.norm + rounding);
  return std::nextafter(limit, std::numeric_limits<float>::infinity());
}

}  // namespace

std::int64_t pack_latents(std::int64_t num_points, int dim, const float* points,
                          const LatentPacking& packing) {
  const float* bad = std::find_if_not(points, points + num_points * dim,
                                      [](float value) { return std::isfinite(value); });
  if (bad != points + num_points * dim) {
    return (bad - points) / dim;
  }
  double* frame = packing.frame;
  const double range = num_points == 0 ? 0 : extent(num_points, dim, points, frame);
  const double step = range > 0 ? range / kCodeMax : 1;
  const double error = encode_columns(num_points, dim, points, frame, step, packing.columns);
  order_latents(num_points, dim, packing.columns, packing.order, packing.spare);
  frame[dim] = step;
  frame[dim + 1] = std::sqrt(error) * (1 + 1e-9);
  frame[dim + 2] = place_codes(num_points, dim, packing);
  make_boxes(num_points, dim, points, packing.order, packing.boxes);
  return num_points;
}

LatentQuery encode_query(const LatentPoints& points, const float* query,
                         const std::uint64_t* visited, std::int32_t* code) {
  const LatentFrame frame = frame_of(points);
  const int quads = num_quads(points.dim);
  double largest = 0;
  for (int d = 0; d < points.dim; ++d) {
    largest = std::max(largest, std::abs(query[d] - points.frame[d]) / frame.step);
  }
  const double finest = std::numeric_limits<std::int32_t>::max() / (kCodeMax * 4 * quads);
  const double code_max = std::min(32767.0, std::floor(finest));
  const float t = static_cast<float>(largest > 0 ? largest / code_max * (1 + 1e-6) : 1);
  std::fill_n(code, 2 * quads, 0);
  LatentQuery result{query, visited, code, 0.0F, 0.0, kInfinity};
  if (!(t < 1e30F) || t < 1e-30F) {
    return result;
  }
  double norm = 0;
  double off = 0;
  for (int d = 0; d < points.dim; ++d) {
    const double exact = (query[d] - points.frame[d]) / frame.step;
    const auto rounded = static_cast<std::int32_t>(std::lrint(exact / t));
    // Even dims of a quad into the first word, odd ones into the second; low half first.
    code[d / 4 * 2 + d % 2] |=
        static_cast<std::int32_t>(static_cast<std::uint32_t>(rounded & 0xffff) << (d % 4 / 2 * 16));
    const double coded = static_cast<double>(rounded) * t;
    norm += coded * coded;
    off += (exact - coded) * (exact - coded);
  }
  result.slope = 2 * t;
  result.norm = norm;
  result.radius = (frame.error + frame.step * std::sqrt(off)) * (1 + 1e-9);
  return result;
}

LatentBest start_best(std::uint64_t* keys, int k) {
  std::fill_n(keys, k, kNoKey);
  constexpr float kFar = std::numeric_limits<float>::infinity();
  return {keys, k, kFar, kFar};
}

void look_at(const LatentPoints& points, const LatentQuery& query, std::int64_t block,
             std::uint32_t mask, LatentBest& best) {
  std::uint64_t* const last = best.keys + best.k - 1;
  const std::uint64_t before = *last;
  for (; mask != 0; mask &= mask - 1) {
    const std::int64_t point = points.order[block * kBlockPoints + std::countr_zero(mask)];
    if (is_left_out(points, query.visited, point)) {
      continue;
    }
    const float squared = distance(points.points + point * points.dim, query.query, points.dim);
    const std::uint64_t key = std::uint64_t{std::bit_cast<std::uint32_t>(squared)} << 32 |
                              static_cast<std::uint64_t>(point);
    if (key < *last) {
      std::uint64_t* const place = std::upper_bound(best.keys, last, key);
      std::copy_backward(place, last, last + 1);
      *place = key;
    }
  }
  if (*last != before) {
    best.limit = std::min(best.limit, limit_of(points, query, *last));
    best.farthest = std::min(best.farthest, distance_of(*last));
  }
}

void merge_best(std::uint64_t* keys, std::int64_t chunks, int k, float* distances,
                std::int64_t* indices) {
  std::partial_sort(keys, keys + k, keys + chunks * k);
  for (int n = 0; n < k; ++n) {
    const bool found = keys[n] != kNoKey;
    distances[n] = found ? distance_of(keys[n]) : std::numeric_limits<float>::infinity();
    indices[n] = found ? static_cast<std::int64_t>(keys[n] & 0xffffffffU) : -1;
  }
}

const LatentScan& latent_scan() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::kAvx512:
      return kLatentScanAvx512;
    case SimdLevel::kAvx2:
      return kLatentScanAvx2;
    case SimdLevel::kScalar:
      break;
  }
#endif
  return kLatentScanScalar;
}

}  // namespace a2v

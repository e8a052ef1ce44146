// SPDX-License-Identifier: Apache-2.0
// What every instruction set shares: codes of points and queries, the bound's slack, the exact
// distance and the list of the best. See nearest_latent.h.

#include "nearest_latent/nearest_latent.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "common/cpu_features.h"

namespace a2v {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kCodeMax = 255.0;

LatentFrame frame_of(const LatentPoints& points) {
  const double* fields = points.frame + points.dim;
  return {.step = fields[0], .error = fields[1], .largest_norm = fields[2]};
}

// Lowest value of each dim, and the widest range of any.
double box(std::int64_t num_points, int dim, const float* points, double* low) {
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

// Writes the codes of one point into its lane; returns |u|^2 and raises `error` to |x - x'|^2.
std::int32_t encode_point(const float* point, int dim, const double* low, double step,
                          std::uint8_t* lane, double& error) {
  const double per_step = 1 / step;
  std::int32_t norm = 0;
  double off = 0;
  for (int d = 0; d < dim; ++d) {
    const double offset = point[d] - low[d];
    const auto code = static_cast<std::int32_t>(std::min(offset * per_step + 0.5, kCodeMax));
    lane[(d / 4) * (4 * kBlockPoints) + d % 4] = static_cast<std::uint8_t>(code);
    norm += code * code;
    const double miss = offset - code * step;
    off += miss * miss;
  }
  error = std::max(error, off);
  return norm;
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

bool is_visited(const std::uint64_t* visited, std::int64_t point) {
  return visited != nullptr && (visited[point / 64] >> (point % 64) & 1) != 0;
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
                          std::uint8_t* codes, float* norms, double* frame) {
  const float* bad = std::find_if_not(points, points + num_points * dim,
                                      [](float value) { return std::isfinite(value); });
  if (bad != points + num_points * dim) {
    return (bad - points) / dim;
  }
  std::fill_n(codes, num_blocks(num_points) * num_quads(dim) * 4 * kBlockPoints, std::uint8_t{0});
  std::fill_n(norms, num_blocks(num_points) * kBlockPoints, std::numeric_limits<float>::infinity());
  const double range = num_points == 0 ? 0 : box(num_points, dim, points, frame);
  const double step = range > 0 ? range / kCodeMax : 1;
  double error = 0;
  std::int32_t largest_norm = 0;
  for (std::int64_t i = 0; i < num_points; ++i) {
    std::uint8_t* lane =
        codes + (i / kBlockPoints * num_quads(dim) * kBlockPoints + i % kBlockPoints) * 4;
    const std::int32_t norm = encode_point(points + i * dim, dim, frame, step, lane, error);
    norms[i] = static_cast<float>(norm);
    largest_norm = std::max(largest_norm, norm);
  }
  frame[dim] = step;
  frame[dim + 1] = std::sqrt(error) * (1 + 1e-9);
  frame[dim + 2] = largest_norm;
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

void start_best(LatentBest& best) {
  std::fill_n(best.keys, best.k, kNoKey);
  best.limit = std::numeric_limits<float>::infinity();
}

void look_at(const LatentPoints& points, const LatentQuery& query, std::int64_t block,
             std::uint32_t mask, LatentBest& best) {
  std::uint64_t* const last = best.keys + best.k - 1;
  const std::uint64_t before = *last;
  for (; mask != 0; mask &= mask - 1) {
    const std::int64_t point = block * kBlockPoints + std::countr_zero(mask);
    if (is_visited(query.visited, point)) {
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
    best.limit = limit_of(points, query, *last);
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

ScanLatents scan_latents() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::kAvx512:
      return scan_latents_avx512;
    case SimdLevel::kAvx2:
      return scan_latents_avx2;
    case SimdLevel::kScalar:
      break;
  }
#endif
  return scan_latents_scalar;
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// See latent_order.h.

#include "nearest_latent/latent_order.h"

#include <algorithm>
#include <numeric>

#include "nearest_latent/nearest_latent.h"

namespace a2v {
namespace {

constexpr std::int64_t kSamples = 32;

struct Tree {
  std::int64_t num_points;
  int dim;
  const std::uint8_t* columns;
  std::int32_t* order;
  std::int32_t* spare;

  const std::uint8_t* column(int d) const { return columns + d * num_points; }

  // The first dim of largest n sum(u^2) - sum(u)^2, over some of the places first .. last-1.
  int widest(std::int64_t first, std::int64_t last) const {
    const std::int64_t stride = std::max<std::int64_t>(1, (last - first) / kSamples);
    const std::int64_t samples = (last - first + stride - 1) / stride;
    int result = 0;
    std::int64_t most = -1;
    for (int d = 0; d < dim; ++d) {
      const std::uint8_t* codes = column(d);
      std::int32_t sum = 0, squares = 0;
      for (std::int64_t place = first; place < last; place += stride) {
        const std::int32_t code = codes[order[place]];
        sum += code;
        squares += code * code;
      }
      const std::int64_t spread = samples * squares - std::int64_t{sum} * sum;
      if (spread > most) {
        most = spread;
        result = d;
      }
    }
    return result;
  }

  // Brings the `left` points of smallest (code, place) to the front; both parts stay in order.
  void cut(std::int64_t first, std::int64_t last, std::int64_t left, const std::uint8_t* codes) {
    std::int32_t counts[256] = {};
    for (std::int64_t place = first; place < last; ++place) ++counts[codes[order[place]]];
    std::int64_t below = 0;
    int border = 0;
    while (below + counts[border] < left) below += counts[border++];
    std::int64_t to_take = left - below;  // of the points on the border
    std::int32_t* front = order + first;
    std::int32_t* back = spare;
    for (std::int64_t place = first; place < last; ++place) {
      const std::int32_t point = order[place];
      const int code = codes[point];
      const bool on_border = code == border;
      const bool taken = (code < border) | (on_border & (to_take > 0));
      to_take -= on_border;
      *front = point;  // at or before what is being read; no branches, which would be guesses
      *back = point;
      front += taken;
      back += !taken;
    }
    std::copy(spare, back, front);
  }

  void grow(std::int64_t first, std::int64_t last) {
    if (last - first <= kGroupPoints) return;
    std::int64_t left = kGroupPoints;
    while (2 * left < last - first) left *= 2;
    cut(first, last, left, column(widest(first, last)));
    grow(first, first + left);
    grow(first + left, last);
  }
};

}  // namespace

void order_latents(std::int64_t num_points, int dim, const std::uint8_t* columns,
                   std::int32_t* order, std::int32_t* spare) {
  std::iota(order, order + num_points, 0);
  Tree{num_points, dim, columns, order, spare}.grow(0, num_points);
}

}  // namespace a2v

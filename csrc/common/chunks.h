// SPDX-License-Identifier: Apache-2.0
// Sums over cells that do not depend on the number of threads.
//
// Cells are cut into chunks by their number alone. Each chunk adds up its own sums, in order; the
// sums of the chunks are then added in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace a2v {

class Chunks {
 public:
  // `smallest`: cells of a chunk at least; `width`: numbers that each chunk adds up.
  Chunks(std::int64_t num_cells, std::int64_t smallest, std::int64_t width)
      : num_cells_(num_cells),
        size_(std::max(smallest, (num_cells + kMost - 1) / kMost)),
        width_(width),
        sums_(static_cast<std::size_t>(count() * width), 0.0) {}

  std::int64_t count() const { return (num_cells_ + size_ - 1) / size_; }
  std::int64_t first(std::int64_t chunk) const { return chunk * size_; }
  std::int64_t last(std::int64_t chunk) const { return std::min(num_cells_, first(chunk) + size_); }
  double* sums(std::int64_t chunk) { return sums_.data() + chunk * width_; }

  // Number `index` summed over all chunks.
  double total(std::int64_t index) const {
    double sum = 0;
    for (std::int64_t chunk = 0; chunk < count(); ++chunk) {
      sum += sums_[static_cast<std::size_t>(chunk * width_ + index)];
    }
    return sum;
  }

 private:
  static constexpr std::int64_t kMost = 64;

  std::int64_t num_cells_;
  std::int64_t size_;
  std::int64_t width_;
  std::vector<double> sums_;
};

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The best K of many candidates by rank_key, in parts that threads look at by themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "common/rank_key.h"

namespace a2v {

// Keeps the `capacity` largest keys it is offered, in keys[0 .. capacity - 1]: a heap whose front
// is the least of them.
class BestKeys {
 public:
  BestKeys(std::uint64_t* keys, std::int64_t capacity) : first_(keys), last_(keys + capacity) {
    std::fill(first_, last_, kNoKey);
  }
  void offer(std::uint64_t key) {
    if (first_ != last_ && key > *first_) {
      std::pop_heap(first_, last_, std::greater<>());
      *(last_ - 1) = key;
      std::push_heap(first_, last_, std::greater<>());
    }
  }

 private:
  std::uint64_t* first_;
  std::uint64_t* last_;
};

// Offers candidates first .. last - 1 that are not visited; `scores` begins with the first's.
inline void offer_scores(const float* scores, std::int64_t first, std::int64_t last,
                         const std::uint8_t* visited, BestKeys* best) {
  for (std::int64_t q = first; q < last; ++q) {
    if (visited == nullptr || visited[q] == 0) {
      best->offer(rank_key(scores[q - first], static_cast<std::uint32_t>(q)));
    }
  }
}

// The best `count` of `listed` keys, which are reordered, as scores and indices.
inline void list_best(std::uint64_t* keys, std::int64_t listed, std::int64_t count, float* scores,
                      std::int64_t* indices) {
  const std::int64_t found = std::min(count, listed);
  std::partial_sort(keys, keys + found, keys + listed, std::greater<>());
  for (std::int64_t k = 0; k < count; ++k) {
    const std::uint64_t key = k < found ? keys[k] : kNoKey;
    scores[k] = key_score(key);
    indices[k] = key_index(key);
  }
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// The best K of many scores on the GPU: blocks sort 2,048 keys (rank_key.h) in shared memory and
// keep the best K, then blocks sort what is left, until one list is. Keys are distinct and ordered
// as results are, so the outcome does not depend on how they were split. Two rounds of some 10 us
// for 423,624 candidates and K = 5; a 2,048-key bitonic sort is 66 exchanges of shared memory.

#include "common/device.cuh"
#include "common/launch.cuh"
#include "common/rank_key.h"
#include "dngo/dngo_cuda.h"

namespace a2v {
namespace {

constexpr int kSelectThreads = 512;
constexpr int kSelectKeys = 2048;
static_assert(kMaxDngoResults <= kSelectKeys / 2, "every round must leave half at most");

__device__ inline void exchange(std::uint64_t* keys, int low, int high, bool descending) {
  const std::uint64_t a = keys[low];
  const std::uint64_t b = keys[high];
  if (descending ? a < b : a > b) {
    keys[low] = b;
    keys[high] = a;
  }
}

// Bitonic sort of kSelectKeys keys, the largest first.
__device__ inline void sort_keys(std::uint64_t* keys) {
  for (int size = 2; size <= kSelectKeys; size *= 2) {
    for (int distance = size / 2; distance >= 1; distance /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kSelectKeys / 2; i += kSelectThreads) {
        const int low = i / distance * distance * 2 + i % distance;
        exchange(keys, low, low + distance, (low & size) == 0);
      }
    }
  }
  __syncthreads();
}

// Sorts the keys that key_at(i) gives for this block's share of `count`, keeps the best K.
template <class KeyAt>
__device__ inline void keep_best(std::int64_t count, int results, std::uint64_t* list,
                                 const KeyAt& key_at) {
  A2V_SHARED(std::uint64_t[kSelectKeys], keys);
  const std::int64_t first = std::int64_t{blockIdx.x} * kSelectKeys;
  for (int i = static_cast<int>(threadIdx.x); i < kSelectKeys; i += kSelectThreads) {
    keys[i] = first + i < count ? key_at(first + i) : kNoKey;
  }
  sort_keys(keys);
  std::uint64_t* mine = list + (std::int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * results;
  for (int i = static_cast<int>(threadIdx.x); i < results; i += kSelectThreads) {
    mine[i] = keys[i];
  }
}

__global__ void __launch_bounds__(kSelectThreads)
    select_scores_kernel(const float* scores, const std::uint8_t* visited, std::int64_t count,
                         int results, std::uint64_t* list) {
  const std::int64_t row = blockIdx.y * count;
  keep_best(count, results, list, [&](std::int64_t q) {
    const bool gone = visited != nullptr && visited[row + q] != 0;
    return gone ? kNoKey : rank_key(scores[row + q], static_cast<std::uint32_t>(q));
  });
}

__global__ void __launch_bounds__(kSelectThreads)
    select_keys_kernel(const std::uint64_t* from, std::int64_t count, int results,
                       std::uint64_t* list) {
  const std::uint64_t* row = from + blockIdx.y * count;
  keep_best(count, results, list, [&](std::int64_t i) { return row[i]; });
}

__global__ void __launch_bounds__(kSelectThreads)
    unpack_keys_kernel(const std::uint64_t* keys, std::int64_t count, float* best,
                       std::int64_t* indices) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kSelectThreads + threadIdx.x;
  if (i < count) {
    best[i] = key_score(keys[i]);
    indices[i] = key_index(keys[i]);
  }
}

std::int64_t lists_of(std::int64_t count) { return (count + kSelectKeys - 1) / kSelectKeys; }

dim3 grid_of(std::int64_t count, std::int64_t seeds) {
  return dim3(static_cast<unsigned>(lists_of(count)), static_cast<unsigned>(seeds));
}

}  // namespace

// Two buffers that the rounds use in turns; the first round writes most.
std::int64_t dngo_select_keys(std::int64_t seeds, std::int64_t candidates, int results) {
  const std::int64_t first = (candidates > 0 ? lists_of(candidates) : 1) * results;
  return seeds * (first + lists_of(first) * results);
}

void dngo_select_cuda(const DngoAcquireParams& params, std::int64_t seeds, const float* scores,
                      std::uint64_t* workspace, float* best, std::int64_t* indices,
                      CudaStream stream) {
  const int results = params.num_results;
  if (seeds == 0 || results == 0) return;
  // Without candidates one list of nothing is still to be written.
  const std::int64_t candidates = params.num_candidates;
  std::int64_t lists = candidates > 0 ? lists_of(candidates) : 1;
  std::uint64_t* keys = workspace;
  std::uint64_t* other = workspace + seeds * lists * results;
  const dim3 block(kSelectThreads);
  launch(select_scores_kernel, dim3(static_cast<unsigned>(lists), static_cast<unsigned>(seeds)),
         block, 0, stream, scores, params.visited, candidates, results, keys);
  while (lists > 1) {
    const std::int64_t count = lists * results;
    launch(select_keys_kernel, grid_of(count, seeds), block, 0, stream, keys, count, results,
           other);
    lists = lists_of(count);
    std::uint64_t* written = other;
    other = keys;
    keys = written;
  }
  const std::int64_t total = seeds * results;
  launch(unpack_keys_kernel,
         dim3(static_cast<unsigned>((total + kSelectThreads - 1) / kSelectThreads)), block, 0,
         stream, keys, total, best, indices);
}

}  // namespace a2v

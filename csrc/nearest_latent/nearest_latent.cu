// SPDX-License-Identifier: Apache-2.0
// nearest_latent on the GPU; definition in nearest_latent.h, parameters in nearest_latent_cuda.h.
//
// Here the points themselves are scanned: 27 MB for 423,624 x 16 stay in the second-level cache,
// and with 16 queries the arithmetic binds (48 operations a point and query: 11 us on an H100).
// Every distance is computed as it is defined, so no bound and no second look are needed.
//
// k = 1: a block keeps 16 queries in shared memory, a thread two points and the best of each query
// in registers; one warp a query reduces the blocks' bests. A larger k: a block scans one chunk for
// one query, appends what beats its k-th best to a list in shared memory and sorts the list when it
// is full; the chunks' lists are merged by the same procedure. Keys (distance bits << 32 | index)
// are distinct, so the order in which threads append does not show.
//
// A NaN cannot raise (the host would have to wait): no key is made from it.

#include "common/device.cuh"
#include "common/launch.cuh"
#include "nearest_latent/nearest_latent.h"
#include "nearest_latent/nearest_latent_cuda.h"

namespace a2v {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kPoints = 2;                 // of a thread at a time: halves the reads of queries
constexpr unsigned kTooFar = 0x7f800001U;  // the bits after infinity's; NaNs have larger ones

__device__ inline float add_square(float sum, float point, float query) {
  const float difference = __fsub_rn(point, query);
  return __fadd_rn(sum, __fmul_rn(difference, difference));
}

__device__ inline std::uint64_t make_key(unsigned distance_bits, unsigned index) {
  return distance_bits < kTooFar ? std::uint64_t{distance_bits} << 32 | index : kNoKey;
}

__device__ inline bool is_visited(const NearestLatentCuda& params, std::int64_t query,
                                  unsigned point) {
  if (params.visited == nullptr) return false;
  const std::int64_t row = params.visited_rows == 1 ? 0 : query;
  const std::int64_t words = (params.num_points + 63) / 64;
  return (params.visited[row * words + point / 64] >> (point % 64) & 1U) != 0;
}

__device__ inline void write_result(const NearestLatentCuda& params, std::int64_t place,
                                    std::uint64_t key) {
  const bool found = key != kNoKey;
  params.distances[place] = __uint_as_float(found ? static_cast<unsigned>(key >> 32) : 0x7f800000U);
  params.indices[place] = found ? static_cast<std::int64_t>(key & 0xffffffffU) : -1;
}

// Whether rows of points can be read four floats at a time.
bool in_fours(const NearestLatentCuda& params) {
  return params.dim % 4 == 0 && reinterpret_cast<std::uintptr_t>(params.points) % 16 == 0;
}

// ---- k = 1 --------------------------------------------------------------------------------------

// Adds dim `d` of kPoints points to their sums with all queries; queries [D, kQueries].
template <int kQueries>
__device__ inline void add_dim(float (&sums)[kPoints][kQueries], const float (&x)[kPoints],
                               const float* queries, int d) {
  const float* row = queries + d * kQueries;
#pragma unroll
  for (int m = 0; m < kQueries; m += 4) {
    float q[4] = {row[m]};
    if constexpr (kQueries >= 4) {
      const float4 four = *reinterpret_cast<const float4*>(row + m);
      q[1] = four.y, q[2] = four.z, q[3] = four.w;
    }
#pragma unroll
    for (int p = 0; p < kPoints; ++p) {
#pragma unroll
      for (int j = 0; j < 4 && m + j < kQueries; ++j) {
        sums[p][m + j] = add_square(sums[p][m + j], x[p], q[j]);
      }
    }
  }
}

// Distances of the points `index` to all queries of the block.
template <int kQueries, bool kFours>
__device__ inline void add_points(const NearestLatentCuda& params, const float* queries,
                                  const std::int64_t (&index)[kPoints],
                                  float (&sums)[kPoints][kQueries]) {
  const float* rows[kPoints];
#pragma unroll
  for (int p = 0; p < kPoints; ++p) rows[p] = params.points + index[p] * params.dim;
  for (int d = 0; d < params.dim; d += kFours ? 4 : 1) {
    float x[kPoints];
    if constexpr (kFours) {
      float4 four[kPoints];
#pragma unroll
      for (int p = 0; p < kPoints; ++p) four[p] = *reinterpret_cast<const float4*>(rows[p] + d);
#pragma unroll
      for (int p = 0; p < kPoints; ++p) x[p] = four[p].x;
      add_dim<kQueries>(sums, x, queries, d);
#pragma unroll
      for (int p = 0; p < kPoints; ++p) x[p] = four[p].y;
      add_dim<kQueries>(sums, x, queries, d + 1);
#pragma unroll
      for (int p = 0; p < kPoints; ++p) x[p] = four[p].z;
      add_dim<kQueries>(sums, x, queries, d + 2);
#pragma unroll
      for (int p = 0; p < kPoints; ++p) x[p] = four[p].w;
      add_dim<kQueries>(sums, x, queries, d + 3);
    } else {
#pragma unroll
      for (int p = 0; p < kPoints; ++p) x[p] = rows[p][d];
      add_dim<kQueries>(sums, x, queries, d);
    }
  }
}

// The best of each query over this block's points, into keys [M, gridDim.x].
template <int kQueries, bool kFours>
__global__ void __launch_bounds__(kThreads, 2) nearest_one_kernel(NearestLatentCuda params) {
  A2V_DYN_SMEM(float, queries);  // [D, kQueries]
  A2V_SHARED(std::uint64_t[kWarps * kQueries], bests);
  const auto thread = static_cast<int>(threadIdx.x);
  const std::int64_t first_query = std::int64_t{blockIdx.y} * kQueries;
  for (int i = thread; i < params.dim * kQueries; i += kThreads) {
    const std::int64_t m = first_query + i % kQueries;
    queries[i] = m < params.num_queries ? params.queries[m * params.dim + i / kQueries] : 0.0F;
  }
  __syncthreads();

  unsigned best[kQueries];
  unsigned where[kQueries];
#pragma unroll
  for (int m = 0; m < kQueries; ++m) {
    best[m] = kTooFar;
    where[m] = 0;
  }
  constexpr std::int64_t kTile = kThreads * kPoints;
  for (std::int64_t tile = blockIdx.x * kTile; tile < params.num_points;
       tile += gridDim.x * kTile) {
    std::int64_t index[kPoints];
    float sums[kPoints][kQueries] = {};
#pragma unroll
    for (int p = 0; p < kPoints; ++p) {  // a thread beyond the end repeats the last point
      const std::int64_t i = tile + p * kThreads + thread;
      index[p] = i < params.num_points ? i : params.num_points - 1;
    }
    add_points<kQueries, kFours>(params, queries, index, sums);
#pragma unroll
    for (int p = 0; p < kPoints; ++p) {
#pragma unroll
      for (int m = 0; m < kQueries; ++m) {  // indices ascend: < keeps the lowest of equals
        const unsigned bits = __float_as_uint(sums[p][m]);
        const auto point = static_cast<unsigned>(index[p]);
        if (bits < best[m] && first_query + m < params.num_queries &&
            !is_visited(params, first_query + m, point)) {
          best[m] = bits;
          where[m] = point;
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kQueries; ++m) {
    const std::uint64_t key = warp_min(make_key(best[m], where[m]));
    if (thread % kWarpSize == 0) bests[m * kWarps + thread / kWarpSize] = key;
  }
  __syncthreads();
  if (thread < kQueries && first_query + thread < params.num_queries) {
    std::uint64_t key = kNoKey;
    for (int warp = 0; warp < kWarps; ++warp) {
      const std::uint64_t other = bests[thread * kWarps + warp];
      key = other < key ? other : key;
    }
    params.keys[(first_query + thread) * gridDim.x + blockIdx.x] = key;
  }
}

// One warp a query: the best of the blocks' bests.
__global__ void __launch_bounds__(kWarpSize)
    merge_one_kernel(NearestLatentCuda params, std::int64_t chunks) {
  const std::uint64_t* keys = params.keys + blockIdx.x * chunks;
  std::uint64_t key = kNoKey;
  for (std::int64_t i = threadIdx.x; i < chunks; i += kWarpSize) {
    key = keys[i] < key ? keys[i] : key;
  }
  key = warp_min(key);
  if (threadIdx.x == 0) write_result(params, blockIdx.x, key);
}

template <int kQueries>
void launch_one(const NearestLatentCuda& params, std::int64_t chunks, CudaStream stream) {
  const std::int64_t groups = (params.num_queries + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(groups));
  const std::size_t bytes = sizeof(float) * kQueries * static_cast<std::size_t>(params.dim);
  launch(
      in_fours(params) ? nearest_one_kernel<kQueries, true> : nearest_one_kernel<kQueries, false>,
      grid, dim3(kThreads), bytes, stream, params);
  launch(merge_one_kernel, dim3(static_cast<unsigned>(params.num_queries)), dim3(kWarpSize), 0,
         stream, params, chunks);
}

// ---- k > 1 --------------------------------------------------------------------------------------

// Ascending; size is a power of two. All threads of the block; ends with a barrier.
__device__ inline void sort_keys(std::uint64_t* keys, int size) {
  for (int span = 2; span <= size; span *= 2) {
    for (int stride = span / 2; stride > 0; stride /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kThreads) {
        const int low = 2 * i - (i & (stride - 1));
        const int high = low + stride;
        const bool ascending = (low & span) == 0;
        const std::uint64_t a = keys[low];
        const std::uint64_t b = keys[high];
        if ((a > b) == ascending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// The list of a block: keys [size] in shared memory, the k best so far first, then what was
// appended since. Room for at least two rounds of appending.
int list_size(int k) {
  int size = 1;
  while (size < k + 2 * kThreads) size *= 2;
  return size;
}

// Leaves the k smallest of source(first) .. source(last - 1), ascending, in keys[0 .. k-1].
template <class Source>
__device__ inline void select_smallest(const Source& source, std::int64_t first, std::int64_t last,
                                       std::uint64_t* keys, int size, int k) {
  A2V_SHARED(int, appended);
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < size; i += kThreads) keys[i] = kNoKey;
  if (thread == 0) appended = 0;
  __syncthreads();
  int count = 0;  // of appended ones, known to all threads
  for (std::int64_t begin = first; begin < last; begin += kThreads) {
    const std::uint64_t worst = keys[k - 1];
    const std::int64_t i = begin + thread;
    const std::uint64_t key = i < last ? source(i, worst) : kNoKey;
    if (key < worst) keys[k + atomicAdd(&appended, 1)] = key;
    count += __syncthreads_count(key < worst ? 1 : 0);
    if (count + kThreads <= size - k && begin + kThreads < last) continue;
    sort_keys(keys, size);
    for (int j = k + thread; j < size; j += kThreads) keys[j] = kNoKey;
    if (thread == 0) appended = 0;
    count = 0;
    __syncthreads();
  }
}

// Keys of the points for one query, read from shared memory.
struct PointKeys {
  const NearestLatentCuda& params;
  const float* query;
  std::int64_t number;
  bool fours;

  __device__ std::uint64_t operator()(std::int64_t i, std::uint64_t worst) const {
    const float* point = params.points + i * params.dim;
    float sum = 0;
    if (fours) {
      for (int d = 0; d < params.dim; d += 4) {
        const float4 x = *reinterpret_cast<const float4*>(point + d);
        sum = add_square(sum, x.x, query[d]);
        sum = add_square(sum, x.y, query[d + 1]);
        sum = add_square(sum, x.z, query[d + 2]);
        sum = add_square(sum, x.w, query[d + 3]);
      }
    } else {
      for (int d = 0; d < params.dim; ++d) sum = add_square(sum, point[d], query[d]);
    }
    const std::uint64_t key = make_key(__float_as_uint(sum), static_cast<unsigned>(i));
    return key < worst && is_visited(params, number, static_cast<unsigned>(i)) ? kNoKey : key;
  }
};

struct StoredKeys {
  const std::uint64_t* keys;

  __device__ std::uint64_t operator()(std::int64_t i, std::uint64_t) const { return keys[i]; }
};

// Block (x, y): the k best of chunk x for query y, into keys [M, gridDim.x, K].
__global__ void __launch_bounds__(kThreads, 4)
    nearest_many_kernel(NearestLatentCuda params, std::int64_t chunk, int size, bool fours) {
  A2V_DYN_SMEM(std::uint64_t, list);  // [size], then the query as float [D]
  auto* query = reinterpret_cast<float*>(list + size);
  const auto thread = static_cast<int>(threadIdx.x);
  const std::int64_t number = blockIdx.y;
  for (int d = thread; d < params.dim; d += kThreads) {
    query[d] = params.queries[number * params.dim + d];
  }
  __syncthreads();
  const std::int64_t first = blockIdx.x * chunk;
  const std::int64_t last = first + chunk < params.num_points ? first + chunk : params.num_points;
  select_smallest(PointKeys{params, query, number, fours}, first, last, list, size, params.k);
  std::uint64_t* out = params.keys + (number * gridDim.x + blockIdx.x) * params.k;
  for (int i = thread; i < params.k; i += kThreads) out[i] = list[i];
}

// One block a query: the k best of the chunks' lists.
__global__ void __launch_bounds__(kThreads)
    merge_many_kernel(NearestLatentCuda params, std::int64_t chunks, int size) {
  A2V_DYN_SMEM(std::uint64_t, list);  // [size]
  const std::int64_t number = blockIdx.x;
  const std::int64_t count = chunks * params.k;
  select_smallest(StoredKeys{params.keys + number * count}, 0, count, list, size, params.k);
  for (int i = static_cast<int>(threadIdx.x); i < params.k; i += kThreads) {
    write_result(params, number * params.k + i, list[i]);
  }
}

void launch_many(const NearestLatentCuda& params, std::int64_t chunks, CudaStream stream) {
  const auto queries = static_cast<unsigned>(params.num_queries);
  const int size = list_size(params.k);
  const std::size_t list_bytes = sizeof(std::uint64_t) * static_cast<std::size_t>(size);
  const std::int64_t chunk = (params.num_points + chunks - 1) / chunks;
  launch(nearest_many_kernel, dim3(static_cast<unsigned>(chunks), queries), dim3(kThreads),
         list_bytes + sizeof(float) * static_cast<std::size_t>(params.dim), stream, params, chunk,
         size, in_fours(params));
  launch(merge_many_kernel, dim3(queries), dim3(kThreads), list_bytes, stream, params, chunks,
         size);
}

int queries_each(std::int64_t num_queries) {
  return num_queries > 4 ? 16 : num_queries > 1 ? 4 : 1;
}

}  // namespace

std::int64_t nearest_latent_chunks(std::int64_t num_points, std::int64_t num_queries, int k,
                                   int multiprocessors) {
  // k = 1: two blocks a multiprocessor. Larger k: four, which is what their shared memory leaves,
  // and chunks not so small that merging them takes longer than scanning.
  const std::int64_t each = k == 1 ? queries_each(num_queries) : 1;
  const std::int64_t rows = (num_queries + each - 1) / each;
  const std::int64_t wanted = ((k == 1 ? 2 : 4) * multiprocessors + rows - 1) / rows;
  const std::int64_t smallest = k == 1 ? kThreads * kPoints : 8 * (k > kThreads ? k : kThreads);
  const std::int64_t possible = (num_points + smallest - 1) / smallest;
  const std::int64_t chunks = wanted < possible ? wanted : possible;
  return chunks < 1 ? 1 : chunks;
}

int nearest_latent_multiprocessors() { return multiprocessors(); }

void nearest_latent_cuda(const NearestLatentCuda& params, std::int64_t chunks, CudaStream stream) {
  if (params.num_queries == 0) return;
  if (params.k > 1) {
    launch_many(params, chunks, stream);
    return;
  }
  switch (queries_each(params.num_queries)) {
    case 1:
      launch_one<1>(params, chunks, stream);
      break;
    case 4:
      launch_one<4>(params, chunks, stream);
      break;
    default:
      launch_one<16>(params, chunks, stream);
  }
}

}  // namespace a2v

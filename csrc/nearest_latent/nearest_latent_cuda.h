// SPDX-License-Identifier: Apache-2.0
// nearest_latent on the GPU: the same definition and the same bits as nearest_latent.h.
#pragma once

#include <cstdint>

#include "common/cuda_stream.h"

namespace a2v {

// Contiguous arrays in device memory; the caller owns and sizes them.
struct NearestLatentCuda {
  std::int64_t num_points;   // Q < 2^31
  std::int64_t num_queries;  // M < 2^16
  int dim;                   // D, at most kMaxLatentDim
  int k;                     // K, at most kMaxNeighbours
  const float* points;       // [Q, D], finite
  const float* queries;      // [M, D]; one that holds a NaN finds nothing
  const std::uint64_t*
      visited;                // [visited_rows, ceil(Q / 64)] as in LatentQuery; null: none visited
  std::int64_t visited_rows;  // 1 or M
  std::uint64_t* keys;        // [M, nearest_latent_chunks(...), K]: scratch
  float* distances;           // [M, K]
  std::int64_t* indices;      // [M, K]
};

inline constexpr std::int64_t kMaxCudaQueries = 65535;  // the driver's limit of gridDim.y

// Into how many pieces the points are cut for a device of so many multiprocessors.
std::int64_t nearest_latent_chunks(std::int64_t num_points, std::int64_t num_queries, int k,
                                   int multiprocessors);

// Multiprocessors of the current device.
int nearest_latent_multiprocessors();

// Starts the search in stream order and does not wait.
void nearest_latent_cuda(const NearestLatentCuda& params, std::int64_t chunks, CudaStream stream);

}  // namespace a2v

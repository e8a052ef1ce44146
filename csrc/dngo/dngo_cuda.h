// SPDX-License-Identifier: Apache-2.0
// Launchers of dngo's CUDA kernels; pointers are of device memory. Nothing here allocates or waits.
#pragma once

#include <cstdint>

#include "common/cuda_stream.h"
#include "dngo/dngo.h"

namespace a2v {

// Bounds of the GPU, besides those of the operators: what a block holds in shared memory.
constexpr int kMaxCudaDrawPoints = 6144;
constexpr int kMaxCudaHidden = 128;
constexpr int kMaxCudaInputs = 64;

void dngo_draw_cuda(const DngoDrawParams& params, std::int64_t seeds, CudaStream stream);

// Bytes of shared memory of one seed's fit: the network with Adam's moments, and the points.
std::int64_t dngo_fit_shared_bytes(const DngoFitParams& params);
constexpr std::int64_t kMaxSharedBytes = 227 * 1024;
void dngo_fit_cuda(const DngoFitParams& params, std::int64_t seeds, CudaStream stream);

void dngo_evidence_cuda(const DngoEvidenceParams& params, std::int64_t seeds, CudaStream stream);

// scores [S, Q].
void dngo_score_cuda(const DngoAcquireParams& params, std::int64_t seeds, float* scores,
                     CudaStream stream);

// Keys of workspace that dngo_select_cuda takes.
std::int64_t dngo_select_keys(std::int64_t seeds, std::int64_t candidates, int results);
// The best K of scores [S, Q]: best [S, K], indices [S, K].
void dngo_select_cuda(const DngoAcquireParams& params, std::int64_t seeds, const float* scores,
                      std::uint64_t* workspace, float* best, std::int64_t* indices,
                      CudaStream stream);

}  // namespace a2v

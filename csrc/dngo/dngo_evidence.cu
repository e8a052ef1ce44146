// SPDX-License-Identifier: Apache-2.0
// dngo evidence on the GPU: one warp a seed. Its lanes share the sums over the spectrum and run the
// search of evidence.h side by side on the same numbers. Double precision, a few hundred
// evaluations of R terms: 50 to 100 us whatever the number of seeds, up to some thousands.

#include "common/device.cuh"
#include "common/launch.cuh"
#include "dngo/dngo_cuda.h"
#include "dngo/evidence.h"

namespace a2v {
namespace {

struct WarpTeam {
  int lane;
  int lanes = kWarpSize;
  __device__ double sum(double value) const { return warp_sum(value); }
};

__global__ void __launch_bounds__(kWarpSize) evidence_kernel(DngoEvidenceParams params) {
  const WarpTeam team{static_cast<int>(threadIdx.x)};
  double optimum[2];
  maximise_evidence(team, params, blockIdx.x, optimum);
  if (threadIdx.x < 2) {
    params.optimum[2 * std::int64_t{blockIdx.x} + threadIdx.x] = optimum[threadIdx.x];
  }
}

}  // namespace

void dngo_evidence_cuda(const DngoEvidenceParams& params, std::int64_t seeds, CudaStream stream) {
  if (seeds == 0) return;
  launch(evidence_kernel, dim3(static_cast<unsigned>(seeds)), dim3(kWarpSize), 0, stream, params);
}

}  // namespace a2v

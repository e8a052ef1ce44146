// SPDX-License-Identifier: Apache-2.0
// latent_decode on the GPU; formulas in latent_decode.h.
//
// Threads: one warp a cell. z, z W, G z and the N x N logits of its cell lie in shared memory;
// lanes take the entries of each product in turn. Rows are padded to an odd length, so that lanes
// that read one column of 32 rows meet different banks. Sums over cells are kept in shared memory
// as float64 while a warp works through the cells of its row of the partial sums
// (common/partial_sums.h).

#include <math.h>

#include "common/device.cuh"
#include "common/launch.cuh"
#include "common/partial_sums.h"
#include "latent_decode/latent_decode.h"

namespace a2v {
namespace {

constexpr int kMostWarps = 4;
constexpr std::int64_t kComfortableBytes = 40 * 1024;  // of a block

// What a kernel must know besides the parameters.
struct Plan {
  int warps;       // of a block
  int bytes;       // of shared memory of a warp
  int bilinear;    // numbers summed over cells: D * D or 0
  int bias;        // N * N or 0
  bool loss;       // the sum of the losses too
  bool gradients;  // of z and what is summed
  std::int64_t rows;
};

// Shared memory of one warp.
template <class T>
struct Workspace {
  double* sums;    // [bilinear + bias + loss]
  T* z;            // [N, ld]
  T* source;       // [N, ld] z W
  T* source_grad;  // [N, ld] G z
  T* edge;         // [N, N]
  int ld;          // D or D + 1, odd

  __device__ Workspace(unsigned char* memory, const Plan& plan, int n, int d)
      : sums(reinterpret_cast<double*>(memory)),
        z(reinterpret_cast<T*>(sums + plan.bilinear + plan.bias + (plan.loss ? 1 : 0))),
        source(z + n * (d | 1)),
        source_grad(source + n * (d | 1)),
        edge(source_grad + n * (d | 1)),
        ld(d | 1) {}
};

__device__ int lane_of() { return static_cast<int>(threadIdx.x % kWarpSize); }

// out [n, ld] = z W or z, of one cell. Returns what plays the part of z W.
template <class T>
__device__ const T* load_cell(const LatentDecodeParams<T>& p, std::int64_t b,
                              const Workspace<T>& work) {
  const int n = p.num_nodes;
  const int d = p.latent_dim;
  __syncwarp();  // the cell before is done with
  for (int e = lane_of(); e < n * d; e += kWarpSize) {
    work.z[e / d * work.ld + e % d] = p.z[b * n * d + e];
  }
  __syncwarp();
  if (p.bilinear == nullptr) return work.z;
  for (int e = lane_of(); e < n * d; e += kWarpSize) {
    const T* row = work.z + e / d * work.ld;
    T sum = 0;
    for (int k = 0; k < d; ++k) sum += row[k] * p.bilinear[k * d + e % d];
    work.source[e / d * work.ld + e % d] = sum;
  }
  __syncwarp();
  return work.source;
}

template <class T>
__device__ T logit(const LatentDecodeParams<T>& p, const T* source, const Workspace<T>& work,
                   int entry) {
  const int n = p.num_nodes;
  const T* a = source + entry / n * work.ld;
  const T* b = work.z + entry % n * work.ld;
  T sum = 0;
  for (int k = 0; k < p.latent_dim; ++k) sum += a[k] * b[k];
  return p.bias == nullptr ? sum : sum + p.bias[entry];
}

// dz and the sums over cells from work.edge, the gradient of the logits.
template <class T>
__device__ void pull_back(const LatentDecodeParams<T>& p, const Plan& plan, std::int64_t b,
                          const T* source, const Workspace<T>& work) {
  const int n = p.num_nodes;
  const int d = p.latent_dim;
  for (int e = lane_of(); e < n * d; e += kWarpSize) {
    T sum = 0;
    for (int j = 0; j < n; ++j) sum += work.edge[e / d * n + j] * work.z[j * work.ld + e % d];
    work.source_grad[e / d * work.ld + e % d] = sum;
  }
  __syncwarp();
  for (int e = lane_of(); e < n * d; e += kWarpSize) {
    const T* row = work.source_grad + e / d * work.ld;
    T sum = 0;
    if (p.bilinear == nullptr) {
      sum = row[e % d];
    } else {
      for (int k = 0; k < d; ++k) sum += row[k] * p.bilinear_transposed[k * d + e % d];
    }
    for (int i = 0; i < n; ++i) sum += work.edge[i * n + e / d] * source[i * work.ld + e % d];
    p.z_grad[b * n * d + e] = sum;
  }
  for (int e = lane_of(); e < plan.bilinear; e += kWarpSize) {
    T sum = 0;
    for (int i = 0; i < n; ++i) {
      sum += work.z[i * work.ld + e / d] * work.source_grad[i * work.ld + e % d];
    }
    work.sums[e] += static_cast<double>(sum);
  }
  for (int e = lane_of(); e < plan.bias; e += kWarpSize) {
    work.sums[plan.bilinear + e] += static_cast<double>(work.edge[e]);
  }
}

__device__ float positive_exp(float x) { return expf(-fabsf(x)); }
__device__ double positive_exp(double x) { return exp(-fabs(x)); }
__device__ float log_of_one_plus(float x) { return log1pf(x); }
__device__ double log_of_one_plus(double x) { return log1p(x); }

// Loss of one cell over pairs i < j, summed over the lanes; leaves the gradient in work.edge.
template <class T>
__device__ double cell_loss(const LatentDecodeParams<T>& p, std::int64_t b, const T* source,
                            const Workspace<T>& work) {
  const int n = p.num_nodes;
  double total = 0;
  for (int e = lane_of(); e < n * n; e += kWarpSize) {
    T gradient = 0;
    if (e / n < e % n) {
      const T x = logit(p, source, work, e);
      const T target = edge_weight(p.edges, n, b, e / n, e % n);
      const T small = positive_exp(x);
      total += static_cast<double>((x < 0 ? T(0) : x) + log_of_one_plus(small) - target * x);
      gradient = (x < 0 ? small : T(1)) / (T(1) + small) - target;
    }
    work.edge[e] = gradient;
  }
  __syncwarp();
  return warp_sum(total);
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kWarpSize)
    forward_kernel(LatentDecodeParams<T> p, Plan plan) {
  A2V_DYN_SMEM(unsigned char, memory);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t b = std::int64_t{blockIdx.x} * plan.warps + warp;
  if (b >= p.num_cells) return;
  const Workspace<T> work(memory + warp * plan.bytes, plan, p.num_nodes, p.latent_dim);
  const T* source = load_cell(p, b, work);
  const int entries = p.num_nodes * p.num_nodes;
  for (int e = lane_of(); e < entries; e += kWarpSize) {
    p.logits[b * entries + e] = logit(p, source, work, e);
  }
}

// Backward and loss: every warp works through the cells of one row of the partial sums.
template <class T>
__global__ void __launch_bounds__(kMostWarps* kWarpSize)
    sums_kernel(LatentDecodeParams<T> p, Plan plan, double* partial) {
  A2V_DYN_SMEM(unsigned char, memory);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t row = std::int64_t{blockIdx.x} * plan.warps + warp;
  if (row >= plan.rows) return;
  const Workspace<T> work(memory + warp * plan.bytes, plan, p.num_nodes, p.latent_dim);
  const int numbers = plan.bilinear + plan.bias;
  const int entries = p.num_nodes * p.num_nodes;
  double loss = 0;
  for (int e = lane_of(); e < numbers; e += kWarpSize) work.sums[e] = 0;
  for (std::int64_t b = row; b < p.num_cells; b += plan.rows) {
    const T* source = load_cell(p, b, work);
    if (plan.loss) {
      loss += cell_loss(p, b, source, work);
    } else {
      for (int e = lane_of(); e < entries; e += kWarpSize) {
        work.edge[e] = p.logits_grad[b * entries + e];
      }
      __syncwarp();
    }
    if (plan.gradients) pull_back(p, plan, b, source, work);
  }
  __syncwarp();  // a number's lane here is not the lane that added to it
  const int width = numbers + (plan.loss ? 1 : 0);
  for (int e = lane_of(); e < numbers; e += kWarpSize) partial[row * width + e] = work.sums[e];
  if (plan.loss && lane_of() == 0) partial[row * width + numbers] = loss;
}

template <class T>
Plan plan_of(const LatentDecodeParams<T>& params, const LatentDecodeTotals<T>& totals,
             bool gradients) {
  Plan plan = {};
  plan.bilinear = totals.bilinear == nullptr ? 0 : params.latent_dim * params.latent_dim;
  plan.bias = totals.bias == nullptr ? 0 : params.num_nodes * params.num_nodes;
  plan.loss = totals.loss != nullptr;
  plan.gradients = gradients;
  plan.rows = partial_rows(params.num_cells);
  const std::int64_t sums = plan.bilinear + plan.bias + (plan.loss ? 1 : 0);
  plan.bytes = static_cast<int>(
      latent_decode_shared_bytes(params.num_nodes, params.latent_dim, sums, sizeof(T)));
  const std::int64_t fit = kComfortableBytes / plan.bytes;
  plan.warps = static_cast<int>(fit < 1 ? 1 : fit > kMostWarps ? kMostWarps : fit);
  return plan;
}

template <class T>
void run_with_sums(const LatentDecodeParams<T>& params, const Plan& plan, double* partial,
                   const LatentDecodeTotals<T>& totals, CudaStream stream) {
  if (plan.rows != 0) {
    const std::int64_t blocks = (plan.rows + plan.warps - 1) / plan.warps;
    launch(sums_kernel<T>, dim3(static_cast<unsigned>(blocks)),
           dim3(static_cast<unsigned>(plan.warps * kWarpSize)),
           static_cast<std::size_t>(plan.warps * plan.bytes), stream, params, plan, partial);
  }
  const int loss = plan.bilinear + plan.bias;
  const int width = loss + (plan.loss ? 1 : 0);
  sum_partials(partial, plan.rows, width, 0, plan.bilinear, totals.bilinear, stream);
  sum_partials(partial, plan.rows, width, plan.bilinear, plan.bias, totals.bias, stream);
  sum_partials(partial, plan.rows, width, loss, plan.loss ? 1 : 0, totals.loss, stream);
}

}  // namespace

template <class T>
void latent_decode_forward_cuda(const LatentDecodeParams<T>& params, CudaStream stream) {
  if (params.num_cells == 0 || params.num_nodes == 0) return;
  const Plan plan = plan_of(params, LatentDecodeTotals<T>{}, false);
  const std::int64_t blocks = (params.num_cells + plan.warps - 1) / plan.warps;
  launch(forward_kernel<T>, dim3(static_cast<unsigned>(blocks)),
         dim3(static_cast<unsigned>(plan.warps * kWarpSize)),
         static_cast<std::size_t>(plan.warps * plan.bytes), stream, params, plan);
}

template <class T>
void latent_decode_backward_cuda(const LatentDecodeParams<T>& params, double* partial,
                                 const LatentDecodeTotals<T>& totals, CudaStream stream) {
  run_with_sums(params, plan_of(params, totals, true), partial, totals, stream);
}

template <class T>
void latent_decode_loss_cuda(const LatentDecodeParams<T>& params, double* partial,
                             const LatentDecodeTotals<T>& totals, CudaStream stream) {
  run_with_sums(params, plan_of(params, totals, params.z_grad != nullptr), partial, totals, stream);
}

#define A2V_INSTANTIATE(T)                                                             \
  template void latent_decode_forward_cuda(const LatentDecodeParams<T>&, CudaStream);  \
  template void latent_decode_backward_cuda(const LatentDecodeParams<T>&, double*,     \
                                            const LatentDecodeTotals<T>&, CudaStream); \
  template void latent_decode_loss_cuda(const LatentDecodeParams<T>&, double*,         \
                                        const LatentDecodeTotals<T>&, CudaStream)
A2V_INSTANTIATE(float);
A2V_INSTANTIATE(double);
#undef A2V_INSTANTIATE

}  // namespace a2v

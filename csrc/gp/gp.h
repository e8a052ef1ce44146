// SPDX-License-Identifier: Apache-2.0
// gp: the posterior of Gaussian processes over a fixed set of candidates, for S searches at once
// that observe different ones of them. Two operators:
//
//   extend   further rows of V = L^-1 K(M, Q), the sum of their squares, and the mean V^T L^-1 y
//   acquire  variance, improvement and the best K of Q candidates
//
// L is the Cholesky factor of K(M, M) + noise. The kernel of two candidates is w times a Matern 5/2
// kernel of their features plus (1 - w) times the product of their normalised histograms.
// Equations: arch2vec_fast/reference.py, the twins of the same names.
//
// Layout: candidates are the lanes. Everything that has one column a candidate is cut into P panels
// of sixteen candidates, [P][rows][16]: a panel of V is contiguous, so that what is done for a
// candidate streams, and rows can be added up to the capacity without moving any.
//
// Shapes: S searches, M observed points, C capacity, Q candidates in P panels, D features, E
// entries of the histograms.
#pragma once

#include <cstddef>
#include <cstdint>

namespace a2v {

constexpr int kGpLanes = 16;    // candidates of a panel
constexpr int kGpRows = 24;     // rows of V that one pass over the candidates adds
constexpr int kGpPanels = 256;  // panels of a task, 4096 candidates: some milliseconds
constexpr int kMaxGpPoints = 1 << 16;

// All arrays are contiguous, owned and sized by the caller; lanes beyond Q hold finite numbers.
struct GpExtendParams {
  int num_features;
  int num_points;               // M
  int capacity;                 // C >= M
  std::int64_t num_panels;      // P
  std::int64_t num_candidates;  // Q
  std::int64_t most_entries;    // of an observed candidate's histogram
  const float* panels;          // [P, D, 16] features
  const float* norms;           // [P, 16] their squared lengths
  const std::int64_t* starts;   // [Q + 1] entries of a candidate
  const std::int32_t* colours;  // [E]
  const float* weights;         // [E]
  const std::int64_t* rows;     // [S, M] candidates observed, -1 behind the last
  const std::int64_t* first;    // [S] rows of V that are there
  const std::int64_t* last;     // [S] rows of V that are wanted
  const float* factor;          // [S, M, M] L
  const float* kernel;          // [S, 2] 1 / length scale, w
  const float* coefficients;    // [S, M] L^-1 y
  float* solved;                // [S, P, C, 16] V
  float* explained;             // [S, P, 16] column sums of V^2
  float* mean;                  // [S, P, 16] V^T L^-1 y
};

struct GpAcquireParams {
  std::int64_t num_panels;
  std::int64_t num_candidates;
  const float* mean;       // [S, P, 16]
  const float* explained;  // [S, P, 16]
  const float* scale;      // [S] standard deviation of the signal
  const float* target;     // [S] to be improved upon
  float* means;            // [S, Q] or null
  float* variances;        // [S, Q] or null
};

// Variance of a function of variance one below which float32 knows nothing.
constexpr float kGpLeastVariance = 1e-6F;

// Floats of workspace of an extend call.
constexpr std::ptrdiff_t gp_extend_floats(const GpExtendParams& params) {
  const std::ptrdiff_t depth = (params.num_features + 15) / 16 * 16;
  return kGpRows * (kGpRows * params.most_entries + 1 + depth + 8 * kGpLanes) +
         (kGpRows + 8) * (std::ptrdiff_t{params.num_points} + kGpRows + 2);
}

// A call works on one search, on panels first .. last - 1, and on one thread; what it writes does
// not depend on how the work is split. lines: one number a colour, zero before and after.
#define A2V_GP_KERNELS                                                                        \
  void gp_extend(const GpExtendParams& params, std::int64_t search, std::int64_t first_panel, \
                 std::int64_t last_panel, float* workspace, std::int32_t* lines);             \
  void gp_score(const GpAcquireParams& params, std::int64_t search, std::int64_t first_panel, \
                std::int64_t last_panel, float* scores);

namespace scalar {
A2V_GP_KERNELS
}
namespace avx2 {
A2V_GP_KERNELS
}
namespace avx512 {
A2V_GP_KERNELS
}

}  // namespace a2v

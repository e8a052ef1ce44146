// SPDX-License-Identifier: Apache-2.0
// dngo: Bayesian optimisation with a Bayesian linear regression on the hidden units of a small
// network (Snoek et al., "Scalable Bayesian Optimization Using Deep Neural Networks", ICML 2015),
// for S independent searches (seeds) at once. Four operators:
//
//   draw      initial parameters and shuffles of every epoch, from the seeds
//   fit       Adam on mini-batches: y ~ readout . tanh(W x + b) + readout_bias
//   evidence  prior precision and noise variance that maximise the marginal likelihood
//   acquire   mean, variance, improvement and the best K of Q candidates, in one pass
//
// Equations: arch2vec_fast/reference.py, the twins of the same names. This header holds what the
// CPU and the CUDA implementations share.
//
// Shapes: S seeds, M observed points, Q candidates, D inputs, H hidden units, E epochs, K results,
// P = H D + 2 H + 1 parameters of a network.
#pragma once

#include <cstdint>

namespace a2v {

// A network's parameters in its flat buffer: the order of torch's `parameters()`.
struct DngoLayout {
  int num_inputs;  // D
  int num_hidden;  // H

  // weight [H, D] row-major starts at 0.
  constexpr int bias() const { return num_hidden * num_inputs; }  // [H]
  constexpr int readout() const { return bias() + num_hidden; }   // [H]
  constexpr int readout_bias() const { return readout() + num_hidden; }
  constexpr int size() const { return readout_bias() + 1; }  // P
};

// The mini-batches of a step stay in registers and shared memory.
constexpr int kMaxDngoBatch = 16;

// The best of a block of candidates stay in its shared memory.
constexpr int kMaxDngoResults = 1024;

// All arrays are contiguous, owned and sized by the caller.
struct DngoDrawParams {
  DngoLayout layout;
  int num_epochs;
  int num_points;
  const std::int64_t* seed;  // [S]
  float* parameters;         // [S, P] uniform in +-1/sqrt(inputs of the layer), as torch.nn.Linear
  std::int32_t* order;       // [S, E, M] a permutation an epoch
};

struct DngoFitParams {
  DngoLayout layout;
  int num_epochs;
  int num_points;
  int batch_size;  // B <= min(M, kMaxDngoBatch); the last M % B points of a shuffle rest
  float learning_rate;
  const float* points;        // [S, M, D]
  const float* targets;       // [S, M]
  const std::int32_t* order;  // [S, E, M]
  float* parameters;          // [S, P], trained in place
  float* losses;              // [S, E] mean squared error over the epoch's batches
};

struct DngoEvidenceParams {
  int num_points;            // M
  int num_hidden;            // H
  int rank;                  // R <= min(M, H)
  bool released;             // the released code's objective and search, see evidence.h
  const double* eigenvalue;  // [S, R] of Phi^T Phi, not negative
  const double* energy;      // [S, R] squares of the targets along the left singular vectors of Phi
  const double* residual;    // [S] square of what those vectors do not reach
  const double* start;       // [S, 2] where the released search starts
  double* optimum;           // [S, 2] log prior precision, log noise variance
};

// How a candidate's mean and variance become its score.
enum class DngoScore : std::int64_t {
  kLogImprovement = 0,  // log of the expected improvement over the target; never underflows
  kReleased = 1,  // expected improvement in float32 with the variance in place of the deviation
};

struct DngoAcquireParams {
  DngoLayout layout;
  std::int64_t num_candidates;
  int num_results;  // K
  DngoScore score;
  const float* candidates;      // [Q, D]
  const float* weight;          // [S, H, D]
  const float* bias;            // [S, H]
  const float* coefficients;    // [S, H] m: mean = m . phi
  const float* factor;          // [S, H, H] lower triangle F: variance = noise + |F phi|^2
  const float* noise;           // [S]
  const float* target;          // [S]
  const std::uint8_t* visited;  // [S, Q] not to be proposed, or null
  float* mean;                  // [S, Q] or null
  float* variance;              // [S, Q] or null
};

}  // namespace a2v

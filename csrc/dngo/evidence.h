// SPDX-License-Identifier: Apache-2.0
// Evidence of a Bayesian linear regression y ~ N(Phi w, 1/beta), w ~ N(0, I/alpha), and its maximum
// (Bishop, "Pattern Recognition and Machine Learning", 3.5), in double, on CPU and CUDA.
//
// With the singular values s_i and left singular vectors u_i of Phi, lambda_i = s_i^2 and energies
// p_i^2 = (u_i . y)^2, every term is a sum over i: after one eigendecomposition an evaluation costs
// O(R) instead of a matrix inverse. K = alpha I + beta Phi^T Phi has the eigenvalues
// k_i = alpha + beta lambda_i (and alpha, H - R times), m = K^-1 beta Phi^T y, and
//
//   |y - Phi m|^2 = residual + sum p_i^2 (alpha / k_i)^2,     |m|^2 = sum beta^2 lambda_i p_i^2 /
//   k_i^2,
//
// sums of positive terms, so nothing cancels.
//
// A Team of threads shares the sums: one thread on the CPU, a warp on CUDA, whose threads all run
// the same search on the same numbers.
#pragma once

#include <cmath>

#include "common/philox.h"
#include "dngo/dngo.h"

namespace a2v {

// lane, lanes: which terms are mine; sum(x): of all lanes, in a fixed order.
struct OneThread {
  int lane = 0;
  int lanes = 1;
  double sum(double value) const { return value; }
};

constexpr double kEvidenceLimit = 10.0;  // both logarithms stay in [-10, 10], as released

// One seed's terms.
struct EvidenceTerms {
  const double* eigenvalue;
  const double* energy;
  double residual;
  int rank;
  int num_points;
  int num_hidden;
};

A2V_HOST_DEVICE inline EvidenceTerms evidence_terms(const DngoEvidenceParams& params,
                                                    std::int64_t seed) {
  return {params.eigenvalue + seed * params.rank,
          params.energy + seed * params.rank,
          params.residual[seed],
          params.rank,
          params.num_points,
          params.num_hidden};
}

// Sum of logarithms of numbers within e^-21 .. e^25: sixteen factors share a logarithm.
class LogProduct {
 public:
  A2V_HOST_DEVICE void multiply(double factor) {
    product_ *= factor;
    if (++count_ % 16 == 0) {
      sum_ += log(product_);
      product_ = 1.0;
    }
  }
  A2V_HOST_DEVICE double value() const { return sum_ + log(product_); }

 private:
  double sum_ = 0.0;
  double product_ = 1.0;
  int count_ = 0;
};

constexpr double kLogTwoPi = 1.8378770664093453;

// The released code's objective, negated: the residual is not squared (SEMANTICS:
// pybnn/dngo.py:290) and log det K has a floor of log 1e-10 and overflows to infinity. Infinite
// outside the limits.
template <class Team>
A2V_HOST_DEVICE double released_cost(const Team& team, const EvidenceTerms& terms,
                                     const double (&log_alpha_noise)[2]) {
  const double log_alpha = log_alpha_noise[0];
  const double log_noise = log_alpha_noise[1];
  if (!(fabs(log_alpha) <= kEvidenceLimit && fabs(log_noise) <= kEvidenceLimit)) {
    return HUGE_VAL;
  }
  const double alpha = exp(log_alpha);
  const double beta = 1.0 / exp(log_noise);
  LogProduct determinant;
  double residual = 0.0;
  double length = 0.0;
  for (int i = team.lane; i < terms.rank; i += team.lanes) {
    const double lambda = terms.eigenvalue[i];
    const double k = alpha + beta * lambda;
    determinant.multiply(k);
    const double shrunk = terms.energy[i] / (k * k);
    residual += shrunk;
    length += shrunk * lambda;
  }
  const double log_determinant =
      team.sum(determinant.value()) + (terms.num_hidden - terms.rank) * log_alpha;
  const double distance = sqrt(terms.residual + alpha * alpha * team.sum(residual));
  const double evidence = 0.5 * terms.num_hidden * log_alpha - 0.5 * terms.num_points * log_noise -
                          0.5 * terms.num_points * kLogTwoPi - 0.5 * beta * distance -
                          0.5 * alpha * beta * beta * team.sum(length) -
                          0.5 * log(exp(log_determinant) + 1e-10);
  return evidence == evidence ? -evidence : 1e25;
}

// Nelder and Mead's simplex search as scipy.optimize.fmin does it in two dimensions, comparison by
// comparison: initial simplex of 5 %, tolerances 1e-4, at most 400 iterations or evaluations.
template <class Cost>
class SimplexSearch {
 public:
  A2V_HOST_DEVICE SimplexSearch(const Cost& cost, const double* start) : cost_(cost) {
    for (int v = 0; v < 3; ++v) {
      for (int i = 0; i < 2; ++i) {
        const double moved = start[i] != 0.0 ? 1.05 * start[i] : 0.00025;
        vertex_[v].x[i] = v == i + 1 ? moved : start[i];
      }
      evaluate(vertex_[v]);
    }
    sort();
  }

  A2V_HOST_DEVICE void run(double* optimum) {
    for (int iteration = 0; iteration < kLimit && evaluations_ < kLimit && !converged();
         ++iteration) {
      step();
      sort();
    }
    optimum[0] = vertex_[0].x[0];
    optimum[1] = vertex_[0].x[1];
  }

 private:
  struct Vertex {
    double x[2];
    double cost;
  };
  static constexpr int kLimit = 400;
  static constexpr double kTolerance = 1e-4;

  A2V_HOST_DEVICE void evaluate(Vertex& vertex) {
    vertex.cost = cost_(vertex.x);
    ++evaluations_;
  }

  A2V_HOST_DEVICE bool converged() const {
    for (int v = 1; v < 3; ++v) {
      // Written so that a difference of infinities, which is not a number, goes on.
      if (!(fabs(vertex_[v].x[0] - vertex_[0].x[0]) <= kTolerance &&
            fabs(vertex_[v].x[1] - vertex_[0].x[1]) <= kTolerance &&
            fabs(vertex_[0].cost - vertex_[v].cost) <= kTolerance)) {
        return false;
      }
    }
    return true;
  }

  // The worst vertex moved along the line through the centre of the others.
  A2V_HOST_DEVICE Vertex moved(double centre_share, double worst_share) {
    Vertex result;
    for (int i = 0; i < 2; ++i) {
      const double centre = (vertex_[0].x[i] + vertex_[1].x[i]) / 2.0;
      result.x[i] = centre_share * centre + worst_share * vertex_[2].x[i];
    }
    evaluate(result);
    return result;
  }

  A2V_HOST_DEVICE void step() {
    const Vertex reflected = moved(2.0, -1.0);
    if (reflected.cost < vertex_[0].cost) {
      const Vertex expanded = moved(3.0, -2.0);
      vertex_[2] = expanded.cost < reflected.cost ? expanded : reflected;
      return;
    }
    if (reflected.cost < vertex_[1].cost) {
      vertex_[2] = reflected;
      return;
    }
    const bool outside = reflected.cost < vertex_[2].cost;
    const Vertex contracted = outside ? moved(1.5, -0.5) : moved(0.5, 0.5);
    if (outside ? contracted.cost <= reflected.cost : contracted.cost < vertex_[2].cost) {
      vertex_[2] = contracted;
      return;
    }
    for (int v = 1; v < 3; ++v) {
      for (int i = 0; i < 2; ++i) {
        vertex_[v].x[i] = vertex_[0].x[i] + 0.5 * (vertex_[v].x[i] - vertex_[0].x[i]);
      }
      evaluate(vertex_[v]);
    }
  }

  A2V_HOST_DEVICE void sort() {  // stable
    order(0, 1);
    order(1, 2);
    order(0, 1);
  }
  A2V_HOST_DEVICE void order(int a, int b) {
    if (vertex_[b].cost < vertex_[a].cost) {
      const Vertex kept = vertex_[a];
      vertex_[a] = vertex_[b];
      vertex_[b] = kept;
    }
  }

  const Cost& cost_;
  Vertex vertex_[3];
  int evaluations_ = 0;
};

template <class Team>
struct ReleasedCost {
  const Team& team;
  const EvidenceTerms& terms;
  A2V_HOST_DEVICE double operator()(const double (&x)[2]) const {
    return released_cost(team, terms, x);
  }
};

// The evidence at ratio t = alpha / beta, beta at its best: with
// E(t) = residual + sum p_i^2 t / (t + lambda_i) it is N/2 log beta - beta/2 E(t) + terms of t,
// whose maximum over beta is N / E(t) or, if that is outside, the nearest point that keeps alpha
// and beta within their limits.
struct ProfilePoint {
  double value;
  double log_beta;
};

template <class Team>
A2V_HOST_DEVICE ProfilePoint profile_evidence(const Team& team, const EvidenceTerms& terms,
                                              double log_ratio) {
  const double t = exp(log_ratio);
  LogProduct determinant;
  double energy = 0.0;
  for (int i = team.lane; i < terms.rank; i += team.lanes) {
    const double k = t + terms.eigenvalue[i];
    determinant.multiply(k);
    energy += terms.energy[i] / k;
  }
  const double error = terms.residual + t * team.sum(energy);
  const double least = -kEvidenceLimit - fmin(0.0, log_ratio);
  const double most = kEvidenceLimit - fmax(0.0, log_ratio);
  const double log_beta = fmin(most, fmax(least, log(terms.num_points / error)));
  const double value = 0.5 * terms.num_points * (log_beta - kLogTwoPi) +
                       0.5 * terms.rank * log_ratio - 0.5 * team.sum(determinant.value()) -
                       0.5 * exp(log_beta) * error;
  return {value, log_beta};
}

// The maximum over log t in [-20, 20]: a grid, finer and finer around its best point, and a
// parabola through the last three. The grid makes it global and its cost known; every device takes
// the same points.
template <class Team>
A2V_HOST_DEVICE void maximise_profile(const Team& team, const EvidenceTerms& terms,
                                      double* optimum) {
  constexpr int kPoints = 33;
  constexpr int kRounds = 5;
  constexpr double kLowest = -2.0 * kEvidenceLimit;
  double low = kLowest;
  double step = -2.0 * low / (kPoints - 1);
  double best = low;
  for (int round = 0; round < kRounds; ++round) {
    double value = -HUGE_VAL;
    for (int i = 0; i < kPoints; ++i) {
      const double at = low + i * step;
      const ProfilePoint point = profile_evidence(team, terms, at);
      if (point.value > value) {
        value = point.value;
        best = at;
      }
    }
    if (round + 1 < kRounds) {
      low = fmax(kLowest, best - step);
      step = (fmin(-kLowest, best + step) - low) / (kPoints - 1);
    }
  }
  const ProfilePoint here = profile_evidence(team, terms, best);
  const double below = profile_evidence(team, terms, best - step).value;
  const double above = profile_evidence(team, terms, best + step).value;
  const double curvature = below - 2.0 * here.value + above;
  const double shift = curvature < 0.0 ? 0.5 * (below - above) / curvature : 0.0;
  const double moved = fmin(-kLowest, fmax(kLowest, best + fmin(1.0, fmax(-1.0, shift)) * step));
  const ProfilePoint there = profile_evidence(team, terms, moved);
  // Where a limit binds the profile has a kink, and a parabola may miss it.
  const bool better = there.value > here.value;
  const double log_beta = better ? there.log_beta : here.log_beta;
  best = better ? moved : best;
  optimum[0] = best + log_beta;
  optimum[1] = -log_beta;
}

// log alpha and the log of the noise variance 1 / beta of one seed.
template <class Team>
A2V_HOST_DEVICE void maximise_evidence(const Team& team, const DngoEvidenceParams& params,
                                       std::int64_t seed, double* optimum) {
  const EvidenceTerms terms = evidence_terms(params, seed);
  if (params.released) {
    const ReleasedCost<Team> cost{team, terms};
    SimplexSearch<ReleasedCost<Team>>(cost, params.start + 2 * seed).run(optimum);
  } else {
    maximise_profile(team, terms, optimum);
  }
}

}  // namespace a2v

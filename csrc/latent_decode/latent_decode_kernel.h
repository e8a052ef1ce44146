// SPDX-License-Identifier: Apache-2.0
// Body of the latent_decode kernels, compiled once for each instruction set. See latent_decode.h.
//
// One routine, a small product with 16 columns in registers, does all the products of a cell; the
// losses of float32 go through the polynomials of common/simd.h, 16 pairs at a time.
#pragma once

#include <math.h>

#include "common/simd.h"
#include "latent_decode/latent_decode.h"

namespace a2v::A2V_SIMD {
namespace {

// A matrix read with any strides.
template <class T>
struct Strided {
  const T* data;
  std::int64_t row;
  std::int64_t column;
};

template <class T, int kWidth>
inline void product_columns(const Strided<T>& a, const T* __restrict b, int rows, int inner,
                            int columns, T* __restrict out, bool add) {
  for (int i = 0; i < rows; ++i) {
    T total[kWidth];
    for (int c = 0; c < kWidth; ++c) total[c] = add ? out[i * columns + c] : T(0);
    for (int k = 0; k < inner; ++k) {
      const T factor = a.data[i * a.row + k * a.column];
      for (int c = 0; c < kWidth; ++c) total[c] += factor * b[k * columns + c];
    }
    for (int c = 0; c < kWidth; ++c) out[i * columns + c] = total[c];
  }
}

// out [rows, columns] (+)= a [rows, inner] b [inner, columns].
template <class T>
inline void product(const Strided<T>& a, const T* b, int rows, int inner, int columns, T* out,
                    bool add = false) {
  int c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    product_columns<T, kLanes>(a, b + c, rows, inner, columns, out + c, add);
  }
  for (; c < columns; ++c) product_columns<T, 1>(a, b + c, rows, inner, columns, out + c, add);
}

// Where things lie in the scratch of one call.
template <class T>
struct Workspace {
  T* transposed;   // [D, N] z^T
  T* source;       // [N, D] z W
  T* source_grad;  // [N, D] G z
  T* edge;         // [N, N] logits, then their gradient
  T* weight_grad;  // [D, D]
  T* pairs;        // [N(N-1)/2] logits above the diagonal
  T* targets;      // [N(N-1)/2]

  Workspace(T* scratch, std::int64_t n, std::int64_t d)
      : transposed(scratch),
        source(transposed + n * d),
        source_grad(source + n * d),
        edge(source_grad + n * d),
        weight_grad(edge + n * n),
        pairs(weight_grad + d * d),
        targets(pairs + n * (n - 1) / 2) {}
};

// z W of one cell, or z itself.
template <class T>
inline const T* make_source(const LatentDecodeParams<T>& p, const T* z, const Workspace<T>& work) {
  if (p.bilinear == nullptr) return z;
  const int d = p.latent_dim;
  product<T>({z, d, 1}, p.bilinear, p.num_nodes, d, d, work.source);
  return work.source;
}

template <class T>
inline void make_logits(const LatentDecodeParams<T>& p, const T* z, const T* source,
                        const Workspace<T>& work, T* logits) {
  const int n = p.num_nodes;
  const int d = p.latent_dim;
  for (int i = 0; i < n; ++i) {
    for (int c = 0; c < d; ++c) work.transposed[c * n + i] = z[i * d + c];
  }
  product<T>({source, d, 1}, work.transposed, n, d, n, logits);
  if (p.bias != nullptr) {
    for (int e = 0; e < n * n; ++e) logits[e] += p.bias[e];
  }
}

// Gradients of z and of what the cells share, from `grad` [N, N], the gradient of the logits.
template <class T>
inline void pull_back(const LatentDecodeParams<T>& p, const T* grad, const T* z, const T* source,
                      const Workspace<T>& work, T* z_grad, const LatentDecodeSums& sums) {
  const int n = p.num_nodes;
  const int d = p.latent_dim;
  if (p.bilinear == nullptr) {
    product<T>({grad, n, 1}, z, n, n, d, z_grad);
  } else {
    product<T>({grad, n, 1}, z, n, n, d, work.source_grad);
    product<T>({work.source_grad, d, 1}, p.bilinear_transposed, n, d, d, z_grad);
  }
  product<T>({grad, 1, n}, source, n, n, d, z_grad, true);
  if (sums.bilinear != nullptr) {
    product<T>({z, 1, d}, work.source_grad, d, n, d, work.weight_grad);
    for (int e = 0; e < d * d; ++e) sums.bilinear[e] += static_cast<double>(work.weight_grad[e]);
  }
  if (sums.bias != nullptr) {
    for (int e = 0; e < n * n; ++e) sums.bias[e] += static_cast<double>(grad[e]);
  }
}

// Replaces logits by their gradient and returns the sum of the losses.
inline double binary_losses(double* logits, const double* targets, int count) {
  double total = 0;
  for (int e = 0; e < count; ++e) {
    const double small = ::exp(-::fabs(logits[e]));
    const double positive = logits[e] < 0 ? 0.0 : logits[e];
    total += positive + ::log1p(small) - targets[e] * logits[e];
    logits[e] = (logits[e] < 0 ? small : 1.0) / (1.0 + small) - targets[e];
  }
  return total;
}

inline double binary_losses(float* logits, const float* targets, int count) {
  const V16 one = set1(1.0F);
  double total = 0;
  for (int e = 0; e < count; e += kLanes) {
    const int lanes = count - e < kLanes ? count - e : kLanes;
    const V16 logit = load_first(logits + e, lanes);
    const V16 target = load_first(targets + e, lanes);
    const V16 small = exp(zero() - absolute(logit));
    float loss[kLanes];
    store(loss, relu(logit) + log1p(small) - target * logit);
    for (int i = 0; i < lanes; ++i) total += static_cast<double>(loss[i]);
    const V16 top = select(logit < zero(), small, one);
    store_first(logits + e, top / (one + small) - target, lanes);
  }
  return total;
}

// Loss of one cell over pairs i < j; leaves the gradient of the logits in work.edge. The pairs are
// gathered into one run, because a row of a cell is shorter than a register.
template <class T>
inline double cell_loss(const LatentDecodeParams<T>& p, std::int64_t b, const Workspace<T>& work) {
  const int n = p.num_nodes;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = i + 1; j < n; ++j, ++count) {
      work.pairs[count] = work.edge[i * n + j];
      work.targets[count] = edge_weight(p.edges, n, b, i, j);
    }
  }
  const double total = binary_losses(work.pairs, work.targets, count);
  count = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) work.edge[i * n + j] = j > i ? work.pairs[count++] : T(0);
  }
  return total;
}

template <class T>
void forward(const LatentDecodeParams<T>& p, std::int64_t first, std::int64_t last, T* scratch) {
  const std::int64_t n = p.num_nodes;
  const Workspace<T> work(scratch, n, p.latent_dim);
  for (std::int64_t b = first; b < last; ++b) {
    const T* z = p.z + b * n * p.latent_dim;
    make_logits(p, z, make_source(p, z, work), work, p.logits + b * n * n);
  }
}

template <class T>
void backward(const LatentDecodeParams<T>& p, std::int64_t first, std::int64_t last, T* scratch,
              const LatentDecodeSums& sums) {
  const std::int64_t n = p.num_nodes;
  const Workspace<T> work(scratch, n, p.latent_dim);
  for (std::int64_t b = first; b < last; ++b) {
    const T* z = p.z + b * n * p.latent_dim;
    const T* source = make_source(p, z, work);
    pull_back(p, p.logits_grad + b * n * n, z, source, work, p.z_grad + b * n * p.latent_dim, sums);
  }
}

template <class T>
void loss(const LatentDecodeParams<T>& p, std::int64_t first, std::int64_t last, T* scratch,
          const LatentDecodeSums& sums) {
  const std::int64_t n = p.num_nodes;
  const Workspace<T> work(scratch, n, p.latent_dim);
  for (std::int64_t b = first; b < last; ++b) {
    const T* z = p.z + b * n * p.latent_dim;
    const T* source = make_source(p, z, work);
    make_logits(p, z, source, work, work.edge);
    *sums.loss += cell_loss(p, b, work);
    if (p.z_grad != nullptr) {
      pull_back(p, work.edge, z, source, work, p.z_grad + b * n * p.latent_dim, sums);
    }
  }
}

}  // namespace
}  // namespace a2v::A2V_SIMD

// SPDX-License-Identifier: Apache-2.0
// latent_decode: edges from node vectors, and their loss, for a batch of cells.
//
//   logits[i, j] = z_i^T W z_j + bias[i, j]            W the identity and bias zero where absent
//   loss = sum over i < j of log(1 + exp(logits)) - adjacency * logits
//
// With G the gradient of the logits (sigmoid(logits) - adjacency above the diagonal for the loss):
//
//   dz = G z W^T + G^T z W,   dW = z^T G z summed over cells,   dbias = G summed over cells
//
// A cell is small (N = 7, D = 16: 0.5 kB), so all of this happens in scratch of a few kilobytes and
// the logits of the loss are never written out. Plain PyTorch: arch2vec_fast/reference.py.
#pragma once

#include <cstdint>

#include "common/cuda_stream.h"
#include "common/edges.h"

namespace a2v {

// Contiguous arrays, owned and sized by the caller; null where the argument is absent.
template <class T>
struct LatentDecodeParams {
  std::int64_t num_cells;        // B
  int num_nodes;                 // N
  int latent_dim;                // D
  const T* z;                    // [B, N, D]
  const T* bilinear;             // [D, D] or null
  const T* bilinear_transposed;  // [D, D] or null, for gradients
  const T* bias;                 // [N, N] or null
  Edges<T> edges;                // targets of the loss; x < y are read
  T* logits;                     // [B, N, N]; forward only
  const T* logits_grad;          // [B, N, N]; backward only
  T* z_grad;                     // [B, N, D]; backward, and loss where gradients are wanted
};

// What passes sum over cells. Null where not wanted.
struct LatentDecodeSums {
  double* bilinear;  // [D, D]
  double* bias;      // [N, N]
  double* loss;      // [1]
};

// Numbers of scratch of a call: z transposed, z W and its gradient, the logits, dW, pairs and their
// targets of one cell.
constexpr std::int64_t latent_decode_scratch(std::int64_t nodes, std::int64_t dim) {
  return 3 * nodes * dim + 2 * nodes * nodes + dim * dim;
}

template <class T>
struct LatentDecodeKernels {
  // Cells first .. last-1.
  void (*forward)(const LatentDecodeParams<T>& params, std::int64_t first, std::int64_t last,
                  T* scratch);
  void (*backward)(const LatentDecodeParams<T>& params, std::int64_t first, std::int64_t last,
                   T* scratch, const LatentDecodeSums& sums);
  // Loss, and its gradients where z_grad is not null.
  void (*loss)(const LatentDecodeParams<T>& params, std::int64_t first, std::int64_t last,
               T* scratch, const LatentDecodeSums& sums);
};

// One an instruction set, for float and double.
template <class T>
LatentDecodeKernels<T> latent_decode_scalar();
template <class T>
LatentDecodeKernels<T> latent_decode_avx2();
template <class T>
LatentDecodeKernels<T> latent_decode_avx512();

// On the GPU. `partial` is scratch of [partial_rows(B), width]; the sums over cells that are not
// null are found in it in the order bilinear, bias, loss.
template <class T>
struct LatentDecodeTotals {
  T* bilinear;  // [D, D]
  T* bias;      // [N, N]
  T* loss;      // [1]
};

template <class T>
void latent_decode_forward_cuda(const LatentDecodeParams<T>& params, CudaStream stream);
template <class T>
void latent_decode_backward_cuda(const LatentDecodeParams<T>& params, double* partial,
                                 const LatentDecodeTotals<T>& totals, CudaStream stream);
template <class T>
void latent_decode_loss_cuda(const LatentDecodeParams<T>& params, double* partial,
                             const LatentDecodeTotals<T>& totals, CudaStream stream);

// Bytes of shared memory that one cell needs on the GPU; `sums`: numbers summed over cells.
constexpr std::int64_t latent_decode_shared_bytes(std::int64_t nodes, std::int64_t dim,
                                                  std::int64_t sums, std::int64_t size_of_number) {
  const std::int64_t numbers = 3 * nodes * (dim + 1) + nodes * nodes;
  return 8 * sums + (numbers * size_of_number + 7) / 8 * 8;
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// What the kernels of gin_encode compute, without torch and the standard library: one body
// (gin_encode_kernel.h), one file an instruction set, called by the engine (gin_encoder.h).
//
// States live in tables of rows, float32, padded with zeros to a multiple of 16 columns. A layer is
// a function from the rows of one table to the rows of the next; a row's key says which rows it is
// made of. A row is computed by the same operations in the same order whatever stands beside it.
//
// Where both directions weigh the same, a layer's first linear commutes with its sum over
// neighbours, W (c x + sum of x_u) = c W x + sum of W x_u. It is then applied to the rows that are
// summed, at the end of the layer before, because there are fewer of them: half a layer's work goes
// by the colours of the round before.
#pragma once

#include <cstdint>

#include "cells/colour_key.h"

namespace a2v {

// Rows that a kernel carries through a whole layer in its scratch: a multiple of its register
// blocks; input and output (2 * 18 KB for H = 128) about fill the first-level cache.
constexpr int kEncodeTile = 36;

// Floats of a kernel's scratch: two tiles, and a list of the columns that count (sparse_rows.h).
constexpr std::int64_t encode_scratch(std::int64_t padded_width) {
  return (3 * padded_width + 1) * kEncodeTile;
}

struct EncodeLinear {
  const float* weight;  // panels as `pack` writes them
  const float* bias;    // [out, padded]
  int in;
  int out;
  bool skips_zeros;  // its input comes from a ReLU, and no weight is infinite or no number
};

struct LayerJob {
  // A row begins as relu(scale * own + neighbours + entry) of rows that have been through the first
  // linear, whose bias `entry` is [H, padded]; or, where entry is null, as the weighed sum alone.
  float scale;
  const float* gates;  // [2, width, padded], or null where both directions weigh one
  const float* entry;
  int width;                    // of a row of `in`
  const EncodeLinear* linears;  // [num_linears], each followed by ReLU: they make the state
  int num_linears;
  int hidden;               // H
  const EncodeLinear* out;  // of the state, without ReLU: the next layer's first linear or the head
  std::int64_t num_rows;
  const std::uint32_t* keys;  // [num_rows, key_size]
  int key_size;
  const float* in;  // [.., width, padded]
  float* states;    // [num_rows, H, padded], or null where nobody asks for them
  float* product;   // [num_rows, out->out, padded], or null: `out` is not applied
  float* scratch;   // encode_scratch(the widest row) floats
};

// out = factor * (sum of table[rows[i]], i < count); `out` has `width` columns and no padding.
struct ReadoutJob {
  const float* table;  // [.., width, padded]
  int width;
  const std::uint32_t* rows;
  int count;
  float factor;
  float* out;
};

struct EncodeKernels {
  // A weight [out, in], row-major, into room for padded out * (in rounded up to even) floats.
  void (*pack)(const float* weight, int out, int in, float* packed);
  void (*layer)(const LayerJob& job);
  void (*readout)(const ReadoutJob& job);
};

namespace scalar {
extern const EncodeKernels kEncodeKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const EncodeKernels kEncodeKernels;
}
namespace avx512 {
extern const EncodeKernels kEncodeKernels;
}
namespace avx512bf16 {
extern const EncodeKernels kEncodeKernels;
}
#endif

}  // namespace a2v

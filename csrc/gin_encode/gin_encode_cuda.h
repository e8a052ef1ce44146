// SPDX-License-Identifier: Apache-2.0
// gin_encode on CUDA: what its operator, its kernels and their tests share. See gin_encode.h for
// the function and gin_encode.cu for how it is computed.
//
// One call is two launches: the folded weights are put into the form that the tensor cores read
// (gin_encode_prepare.cu), then every cell is encoded (gin_encode.cu). Between the two lies a
// workspace, whose layout stands here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/cuda_stream.h"
#include "gin_encode/gin_encode.h"

namespace a2v {

constexpr int kGinEncodeMaxHidden = 256;

// Where the prepared weights lie in the workspace, in words of 4 bytes. A "product" is a linear
// that runs on the tensor cores: all but the first, which only ever sees one-hot rows. Width Wd is
// H rounded up to 64, 128 or 256; the weights and biases beyond H are zero, so are the states.
struct GinEncodePlan {
  int width;         // Wd
  int num_products;  // L*K - 1, product p being linear p + 1
  bool split;        // operands as two half-precision numbers each, else as one

  std::int64_t fragments;  // [num_products][Wd/16][Wd/8][32][4]: operand B of the products; half
                           // as many words without split
  std::int64_t first;      // [3][F + 1][Wd]: first linear times scale, successor and predecessor
                           // gate; row 0 (an absent node) is zero
  std::int64_t biases;     // [L*K][Wd]
  std::int64_t gates;      // [L][2][Wd], zero in layer 0
  std::int64_t head;       // [Wd][D]: transposed
  std::int64_t head_bias;  // [D]
  std::int64_t scales;     // [L]
  std::int64_t unscales;   // [num_products]: 2^-e where the weights were multiplied by 2^e
  std::int64_t gains;      // [L*K]: how far the aggregation after a linear can enlarge a state
  std::int64_t bound;      // [1]: of the states after the first linear
  std::int64_t words;      // of the workspace

  GinEncodePlan(const GinEncodeConfig& config, GinEncodePrecision precision) {
    const std::int64_t linears = std::int64_t{config.num_layers} * config.num_mlp_layers;
    width = config.hidden_dim <= 64 ? 64 : config.hidden_dim <= 128 ? 128 : 256;
    num_products = static_cast<int>(linears) - 1;
    split = precision == GinEncodePrecision::kFloat32;
    std::int64_t next = 0;
    const auto take = [&next](std::int64_t count) {
      const std::int64_t offset = next;
      next += (count + 3) / 4 * 4;  // every array starts at a multiple of 16 bytes
      return offset;
    };
    fragments = take(std::int64_t{num_products} * fragment_words());
    first = take(std::int64_t{3} * (config.num_op_types + 1) * width);
    biases = take(linears * width);
    gates = take(std::int64_t{2} * config.num_layers * width);
    head = take(std::int64_t{width} * config.latent_dim);
    head_bias = take(config.latent_dim);
    scales = take(config.num_layers);
    unscales = take(num_products);
    gains = take(linears);
    bound = take(1);
    words = next;
  }

  // Of one product.
  constexpr int fragment_words() const { return width * width / (split ? 1 : 2); }
};

// Of device memory, for launch_gin_encode.
std::size_t gin_encode_workspace_bytes(const GinEncodeConfig& config, GinEncodePrecision precision);

// Encodes params.num_cells cells (1 or more) on `stream`. All pointers are device memory;
// `workspace` is 16-byte aligned and holds gin_encode_workspace_bytes. H is at most
// kGinEncodeMaxHidden. A code that is no cell of the layout gives NaN.
void launch_gin_encode(const GinEncodeParams& params, void* workspace, CudaStream stream);

// The first of its two launches; `workspace` as above.
void launch_gin_encode_prepare(const GinEncodeParams& params, const GinEncodePlan& plan,
                               void* workspace, CudaStream stream);

}  // namespace a2v

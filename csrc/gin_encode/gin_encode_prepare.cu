// SPDX-License-Identifier: Apache-2.0
// gin_encode on CUDA, first launch: folded weights into the layout of GinEncodePlan.
//
// Block (p, part) writes its part of product p's operand; column p = num_products of the grid
// writes everything else. Weights of a product are multiplied by the power of two that brings the
// largest to 2^13 .. 2^14, so that their fp16 parts keep full precision whatever the model's scale;
// bf16 has float32's range and leaves them. A few microseconds, read once: the whole buffer is 0.5
// MB.

#include <cmath>

#include "common/device.cuh"
#include "common/launch.cuh"
#include "gin_encode/gin_encode_cuda.h"
#include "gin_encode/gin_encode_fragment.cuh"

namespace a2v {
namespace gin_encode_cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kParts = 8;  // blocks a product

// Largest finite magnitude of `count` weights, in every thread of the block.
__device__ float largest(const float* weights, int count) {
  A2V_SHARED(float[kThreads / kWarpSize], of_warps);
  float mine = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const float magnitude = fabsf(weights[i]);
    if (magnitude > mine && magnitude < INFINITY) mine = magnitude;
  }
  mine = warp_max(mine);
  __syncthreads();  // the last use of of_warps
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = mine;
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarpSize; ++warp) mine = fmaxf(mine, of_warps[warp]);
  return mine;
}

// 2^e with 2^13 <= largest 2^e < 2^14.
template <GinEncodePrecision kPrecision>
__device__ float weight_scale(float largest_weight) {
  if (Format<kPrecision>::kBFloat16 || largest_weight == 0.0F) return 1.0F;
  const int exponent = static_cast<int>(__float_as_uint(largest_weight) >> 23) - 127;
  return ldexpf(1.0F, min(13 - exponent, 126));
}

// Operand B of y = x W^T in the order of the lanes: element [k][n] is weight[n][k].
template <GinEncodePrecision kPrecision>
__device__ void write_fragments(const float* weight, int hidden, int width, float scale,
                                std::uint32_t* fragments) {
  using F = Format<kPrecision>;
  const int tiles = F::kSplit ? width / 8 : width / 16;  // a lane's four words: one or two n tiles
  const int words = width / 16 * tiles * kWarpSize * 4;
  const int stride = static_cast<int>(gridDim.y) * kThreads;
  for (int word = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
       word < words; word += stride) {
    const int part = word % 4;
    const int lane = word / 4 % kWarpSize;
    const int tile = word / (4 * kWarpSize) % tiles;
    const int step = word / (4 * kWarpSize) / tiles;
    const int k = step * 16 + lane % 4 * 2 + part % 2 * 8;
    const int n = (F::kSplit ? tile : tile * 2 + part / 2) * 8 + lane / 4;
    const auto element = [&](int column) {
      return n < hidden && column < hidden ? weight[n * hidden + column] * scale : 0.0F;
    };
    const Pair pair = {element(k), element(k + 1)};
    const std::uint32_t high = F::pack(pair);
    fragments[word] = F::kSplit && part >= 2 ? F::pack_rest(pair, high, 1.0F) : high;
  }
}

// The first linear as sums of columns: of the node's own operation times scale, and of its
// neighbours' operations times their gate.
__device__ void write_first(const GinEncodeConfig& config, const GinEncodeWeights& offsets,
                            const GinEncodePlan& plan, const float* weights, float* workspace) {
  const int width = plan.width;
  const int rows = config.num_op_types + 1;
  const float* gates = weights + offsets.gates(0);
  const float* weight = weights + offsets.weight(0, 0);
  for (int i = static_cast<int>(threadIdx.x); i < 3 * rows * width; i += kThreads) {
    const int channel = i % width;
    const int op = i / width % rows - 1;
    const int which = i / width / rows;
    float value = 0.0F;
    if (channel < config.hidden_dim && op >= 0) {
      const float factor =
          which == 0 ? weights[offsets.scale(0)] : gates[(which - 1) * config.num_op_types + op];
      value = factor * weight[channel * config.num_op_types + op];
    }
    workspace[plan.first + i] = value;
  }
}

// Biases, gates, scales and the head, padded to Wd.
__device__ void write_vectors(const GinEncodeConfig& config, const GinEncodeWeights& offsets,
                              const GinEncodePlan& plan, const float* weights, float* workspace) {
  const int hidden = config.hidden_dim;
  const int width = plan.width;
  const int first = static_cast<int>(threadIdx.x);
  const int mlp = config.num_mlp_layers;
  for (int i = first; i < config.num_layers * mlp * width; i += kThreads) {
    const int channel = i % width;
    const int linear = i / width;
    workspace[plan.biases + i] =
        channel < hidden ? weights[offsets.bias(linear / mlp, linear % mlp) + channel] : 0.0F;
  }
  for (int i = first; i < config.num_layers * 2 * width; i += kThreads) {
    const int channel = i % width;
    const int direction = i / width % 2;
    const int layer = i / width / 2;
    workspace[plan.gates + i] = channel < hidden && layer > 0
                                    ? weights[offsets.gates(layer) + direction * hidden + channel]
                                    : 0.0F;
  }
  for (int i = first; i < width * config.latent_dim; i += kThreads) {
    const int channel = i / config.latent_dim;
    const int d = i % config.latent_dim;
    workspace[plan.head + i] =
        channel < hidden ? weights[offsets.head_weight() + d * hidden + channel] : 0.0F;
  }
  for (int d = first; d < config.latent_dim; d += kThreads) {
    workspace[plan.head_bias + d] = weights[offsets.head_bias() + d];
  }
  for (int layer = first; layer < config.num_layers; layer += kThreads) {
    workspace[plan.scales + layer] = weights[offsets.scale(layer)];
  }
}

// Bounds on what an aggregation makes of states up to 1, and on the states after the first linear.
__device__ void write_bounds(const GinEncodeConfig& config, const GinEncodeWeights& offsets,
                             const GinEncodePlan& plan, const float* weights, float* workspace) {
  const auto neighbours = static_cast<float>(config.num_nodes - 1);
  const auto gain = [&](int layer) {
    const float gate = largest(weights + offsets.gates(layer), 2 * config.input_width(layer));
    return fabsf(weights[offsets.scale(layer)]) + neighbours * gate;
  };
  const int linears = config.num_layers * config.num_mlp_layers;
  for (int linear = 0; linear < linears; ++linear) {
    const int next = linear + 1;
    const bool aggregates = next < linears && next % config.num_mlp_layers == 0;
    const float factor = aggregates ? gain(next / config.num_mlp_layers) : 1.0F;
    if (threadIdx.x == 0) workspace[plan.gains + linear] = factor;
  }
  const float weight =
      largest(weights + offsets.weight(0, 0), config.hidden_dim * config.num_op_types);
  const float bias = largest(weights + offsets.bias(0, 0), config.hidden_dim);
  const float first_gain = gain(0);
  if (threadIdx.x == 0) workspace[plan.bound] = first_gain * weight + bias;
}

template <GinEncodePrecision kPrecision>
__global__ __launch_bounds__(kThreads) void gin_encode_prepare_kernel(GinEncodeConfig config,
                                                                      GinEncodePlan plan,
                                                                      const float* weights,
                                                                      float* workspace) {
  const GinEncodeWeights offsets(config);
  const int product = static_cast<int>(blockIdx.x);
  if (product < plan.num_products) {
    const int linear = product + 1;
    const int layer = linear / config.num_mlp_layers;
    const float* weight = weights + offsets.weight(layer, linear % config.num_mlp_layers);
    const int hidden = config.hidden_dim;
    const float scale = weight_scale<kPrecision>(largest(weight, hidden * hidden));
    auto* fragments = reinterpret_cast<std::uint32_t*>(workspace + plan.fragments);
    write_fragments<kPrecision>(weight, hidden, plan.width, scale,
                                fragments + std::int64_t{product} * plan.fragment_words());
    if (threadIdx.x == 0 && blockIdx.y == 0) workspace[plan.unscales + product] = 1.0F / scale;
  } else if (blockIdx.y == 0) {
    write_first(config, offsets, plan, weights, workspace);
  } else if (blockIdx.y == 1) {
    write_vectors(config, offsets, plan, weights, workspace);
  } else if (blockIdx.y == 2) {
    write_bounds(config, offsets, plan, weights, workspace);
  }
}

}  // namespace
}  // namespace gin_encode_cuda

void launch_gin_encode_prepare(const GinEncodeParams& params, const GinEncodePlan& plan,
                               void* workspace, CudaStream stream) {
  using namespace gin_encode_cuda;
  const auto start = [&](auto kernel) {
    launch(kernel, dim3(static_cast<unsigned>(plan.num_products) + 1, kParts), dim3(kThreads), 0,
           stream, params.config, plan, params.weights, static_cast<float*>(workspace));
  };
  switch (params.precision) {
    case GinEncodePrecision::kFloat32:
      return start(gin_encode_prepare_kernel<GinEncodePrecision::kFloat32>);
    case GinEncodePrecision::kTensorFloat32:
      return start(gin_encode_prepare_kernel<GinEncodePrecision::kTensorFloat32>);
    case GinEncodePrecision::kBFloat16:
      return start(gin_encode_prepare_kernel<GinEncodePrecision::kBFloat16>);
  }
}

std::size_t gin_encode_workspace_bytes(const GinEncodeConfig& config,
                                       GinEncodePrecision precision) {
  return static_cast<std::size_t>(GinEncodePlan(config, precision).words) * sizeof(float);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// dngo draw and fit on the GPU.
//
// Fit: one block a seed for the whole training, one thread a hidden unit. The thread's input
// weights and their moments lie in shared memory, [D][threads], so that neighbours never collide;
// bias and readout stay in registers; all points of the seed lie in shared memory and are read as
// broadcasts of four inputs. A step has one barrier, behind the only thing that threads exchange:
// the readout of each row of the batch. Partial sums and rows are double-buffered, so that a fast
// warp may be half a step ahead of a slow one. A thread's arithmetic is that of dngo_fit_kernel.h
// in another order of summation over the hidden units.
//
// A row outside 0 .. M - 1 cannot raise, because the host would have to wait; its error is not a
// number, and so is the network after it.

#include "common/launch.cuh"
#include "dngo/dngo_cuda.h"
#include "dngo/random.h"
#include "dngo/scalar.cuh"

namespace a2v {
namespace {

// ---- Draw -------------------------------------------------------------------------------------

constexpr int kDrawThreads = 128;

__global__ void __launch_bounds__(kDrawThreads)
    draw_parameters_kernel(DngoDrawParams params, float hidden_bound, float readout_bound) {
  const std::int64_t s = blockIdx.y;
  const int element = static_cast<int>(blockIdx.x * kDrawThreads + threadIdx.x);
  if (element < params.layout.size()) {
    params.parameters[s * params.layout.size() + element] =
        dngo_parameter(static_cast<std::uint64_t>(params.seed[s]), params.layout, element,
                       hidden_bound, readout_bound);
  }
}

// A block sorts the keys of one epoch by counting, for each, the smaller ones.
__global__ void __launch_bounds__(kDrawThreads) draw_order_kernel(DngoDrawParams params) {
  A2V_DYN_SMEM(std::uint64_t, keys);
  const std::int64_t s = blockIdx.y;
  const int epoch = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const auto seed = static_cast<std::uint64_t>(params.seed[s]);
  for (int point = thread; point < params.num_points; point += kDrawThreads) {
    keys[point] = dngo_shuffle_key(seed, epoch, point);
  }
  __syncthreads();
  std::int32_t* order = params.order + (s * params.num_epochs + epoch) * params.num_points;
  for (int point = thread; point < params.num_points; point += kDrawThreads) {
    const std::uint64_t key = keys[point];
    int rank = 0;
    for (int other = 0; other < params.num_points; ++other) {
      rank += keys[other] < key ? 1 : 0;
    }
    order[rank] = point;
  }
}

// ---- Fit --------------------------------------------------------------------------------------

constexpr int kRowSlots = 16;        // of partial sums; at least the rows of a batch
constexpr float kFirstDecay = 0.1F;  // 1 - 0.9
constexpr float kSecondKeep = 0.999F;
constexpr float kSecondDecay = 0.001F;
constexpr float kTiny = 1e-8F;
constexpr double kLogFirstKeep = -0.10536051565782628;     // log 0.9
constexpr double kLogSecondKeep = -0.0010005003335835335;  // log 0.999

constexpr int rounded_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// Where everything lies in shared memory, in floats from its start.
struct FitShape {
  int inputs;   // D rounded up to 4, zeros behind
  int threads;  // H rounded up to a warp
  int warps;
  int weight;   // [inputs][threads], twice more for the moments
  int points;   // [M][inputs]
  int targets;  // [M]
  int partial;  // [2][warps][kRowSlots]
  int rows;     // [2][kRowSlots] as integers
  int steps;    // [threads] Adam's rate and scale
  int size;

  FitShape(const DngoLayout& layout, int num_points)
      : inputs(rounded_up(layout.num_inputs, 4)),
        threads(rounded_up(layout.num_hidden, kWarpSize)),
        warps(threads / kWarpSize),
        weight(0),
        points(3 * inputs * threads),
        targets(points + num_points * inputs),
        partial(rounded_up(targets + num_points, 4)),
        rows(partial + 2 * warps * kRowSlots),
        steps(rows + 2 * kRowSlots),
        size(steps + 2 * threads) {}
};

struct AdamStep {
  float rate;   // learning rate / (1 - 0.9^t)
  float scale;  // 1 / sqrt(1 - 0.999^t)
};

__device__ inline void adam(float gradient, const AdamStep& step, float& value, float& first,
                            float& second) {
  first = fmaf(gradient - first, kFirstDecay, first);
  second = fmaf(kSecondDecay * gradient, gradient, kSecondKeep * second);
  value -= step.rate * (first / fmaf(sqrtf(second), step.scale, kTiny));
}

struct Adapted {
  float value = 0.0F;
  float first = 0.0F;
  float second = 0.0F;
  __device__ void update(float gradient, const AdamStep& step) {
    adam(gradient, step, value, first, second);
  }
};

// Sums sixteen values over a warp; lane l gets the sum of value l / 2. Half of the values go to the
// other half of the lanes in each round: 16 shuffles instead of 80.
__device__ inline float sum_rows(float (&value)[kRowSlots], int lane) {
#pragma unroll
  for (int half = kRowSlots / 2; half >= 1; half /= 2) {
    const bool upper = (lane & (2 * half)) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float sent = upper ? value[i] : value[i + half];
      const float kept = upper ? value[i + half] : value[i];
      value[i] = kept + __shfl_xor_sync(kWholeWarp, sent, 2 * half);
    }
  }
  return value[0] + __shfl_xor_sync(kWholeWarp, value[0], 1);
}

// One thread's view of the network and the data.
struct Unit {
  float* weight;  // element d at weight[d * threads]
  float* first;
  float* second;
  const float* points;
  int inputs;
  int threads;
};

// z[r] += W x of each row.
template <int kRows>
__device__ inline void multiply_inputs(const Unit& unit, const int (&row)[kRows],
                                       float (&z)[kRows]) {
  for (int d = 0; d < unit.inputs; d += 4) {
    float w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      w[i] = unit.weight[(d + i) * unit.threads];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = *reinterpret_cast<const float4*>(unit.points + row[r] * unit.inputs + d);
      z[r] = fmaf(x.x, w[0], z[r]);
      z[r] = fmaf(x.y, w[1], z[r]);
      z[r] = fmaf(x.z, w[2], z[r]);
      z[r] = fmaf(x.w, w[3], z[r]);
    }
  }
}

// Gradients of the input weights, each used at once.
template <int kRows>
__device__ inline void update_inputs(const Unit& unit, const int (&row)[kRows],
                                     const float (&delta)[kRows], const AdamStep& step) {
  for (int d = 0; d < unit.inputs; d += 4) {
    float gradient[4] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = *reinterpret_cast<const float4*>(unit.points + row[r] * unit.inputs + d);
      gradient[0] = fmaf(x.x, delta[r], gradient[0]);
      gradient[1] = fmaf(x.y, delta[r], gradient[1]);
      gradient[2] = fmaf(x.z, delta[r], gradient[2]);
      gradient[3] = fmaf(x.w, delta[r], gradient[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = (d + i) * unit.threads;
      adam(gradient[i], step, unit.weight[at], unit.first[at], unit.second[at]);
    }
  }
}

// Network and data of seed s into shared memory; everything else there zero.
__device__ inline void load_seed(const DngoFitParams& params, const FitShape& shape, std::int64_t s,
                                 float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < shape.size; i += shape.threads) {
    shared[i] = 0.0F;
  }
  __syncthreads();
  const int inputs = params.layout.num_inputs;
  const float* flat = params.parameters + s * params.layout.size();
  for (int i = thread; i < params.layout.num_hidden * inputs; i += shape.threads) {
    shared[shape.weight + (i % inputs) * shape.threads + i / inputs] = flat[i];
  }
  const float* points = params.points + s * params.num_points * inputs;
  for (int i = thread; i < params.num_points * inputs; i += shape.threads) {
    shared[shape.points + (i / inputs) * shape.inputs + i % inputs] = points[i];
  }
  for (int i = thread; i < params.num_points; i += shape.threads) {
    shared[shape.targets + i] = params.targets[s * params.num_points + i];
  }
}

// Rates of the steps first, first + 1, ..., one a thread; `table` holds them until the next call.
__device__ inline void tabulate_steps(float learning_rate, int first, int threads, float2* table) {
  __syncthreads();
  const double count = first + 1 + static_cast<int>(threadIdx.x);
  if (static_cast<int>(threadIdx.x) < threads) {
    table[threadIdx.x] =
        make_float2(static_cast<float>(learning_rate / (1.0 - ::exp(count * kLogFirstKeep))),
                    static_cast<float>(1.0 / ::sqrt(1.0 - ::exp(count * kLogSecondKeep))));
  }
  __syncthreads();
}

// kRows: rows in registers, the batch padded with rows of error zero.
template <int kRows>
__global__ void __launch_bounds__(kMaxCudaHidden) fit_kernel(DngoFitParams params, FitShape shape) {
  A2V_DYN_SMEM(float, shared);
  const std::int64_t s = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int batch = params.batch_size;
  const int batches = params.num_points / batch;
  const int steps = params.num_epochs * batches;
  float* flat = params.parameters + s * params.layout.size();
  const bool real = thread < params.layout.num_hidden;
  load_seed(params, shape, s, shared);

  float* column = shared + shape.weight + thread;
  const int network = shape.inputs * shape.threads;
  const Unit unit{column,       column + network, column + 2 * network, shared + shape.points,
                  shape.inputs, shape.threads};
  const float* targets = shared + shape.targets;
  int* rows = reinterpret_cast<int*>(shared + shape.rows);
  auto* table = reinterpret_cast<float2*>(shared + shape.steps);
  Adapted bias;
  Adapted readout;
  Adapted readout_bias;  // the same in every thread
  bias.value = real ? flat[params.layout.bias() + thread] : 0.0F;
  readout.value = real ? flat[params.layout.readout() + thread] : 0.0F;
  readout_bias.value = flat[params.layout.readout_bias()];

  const std::int32_t* order =
      params.order + s * params.num_epochs * static_cast<std::int64_t>(params.num_points);
  if (thread < batch && steps > 0) {
    rows[thread] = order[thread];
  }
  const float share = 1.0F / static_cast<float>(batch);
  float epoch_loss = 0.0F;
  int epoch = 0;
  int within = 0;
  for (int step = 0; step < steps; ++step) {
    if (step % shape.threads == 0) {  // the barriers also cover what was loaded above
      tabulate_steps(params.learning_rate, step, shape.threads, table);
    }
    const AdamStep now{table[step % shape.threads].x, table[step % shape.threads].y};
    // The next batch's rows travel while this one is worked on.
    const bool last_of_epoch = within + 1 == batches;
    const int next_epoch = last_of_epoch ? epoch + 1 : epoch;
    const int next_within = last_of_epoch ? 0 : within + 1;
    int next_row = 0;
    if (thread < batch && step + 1 < steps) {
      next_row = order[static_cast<std::int64_t>(next_epoch) * params.num_points +
                       next_within * batch + thread];
    }

    int row[kRows];
    float z[kRows];
    bool sound = true;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int wanted = r < batch ? rows[step % 2 * kRowSlots + r] : 0;
      const bool inside = wanted >= 0 && wanted < params.num_points;
      sound = sound && inside;
      row[r] = inside ? wanted : 0;
      z[r] = bias.value;
    }
    multiply_inputs(unit, row, z);
    float sums[kRowSlots] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      z[r] = tanh_of(z[r]);
      sums[r] = readout.value * z[r];
    }
    float* partial = shared + shape.partial + step % 2 * shape.warps * kRowSlots;
    const float total = sum_rows(sums, lane);
    if (lane % 2 == 0) {
      partial[thread / kWarpSize * kRowSlots + lane / 2] = total;
    }
    if (thread < batch) {
      rows[(step + 1) % 2 * kRowSlots + thread] = next_row;
    }
    __syncthreads();

    float loss = 0.0F;
    float readout_gradient = 0.0F;
    float bias_gradient = 0.0F;
    float output_gradient = 0.0F;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float output = readout_bias.value;
      for (int w = 0; w < shape.warps; ++w) {
        output += partial[w * kRowSlots + r];
      }
      float difference = r < batch ? output - targets[row[r]] : 0.0F;
      difference = sound ? difference : __uint_as_float(0x7fc00000U);
      const float error = 2.0F * share * difference;
      loss = fmaf(difference, difference, loss);
      output_gradient += error;
      readout_gradient = fmaf(error, z[r], readout_gradient);
      z[r] = error * readout.value * (1.0F - z[r] * z[r]);
      bias_gradient += z[r];
    }
    update_inputs(unit, row, z, now);
    bias.update(bias_gradient, now);
    readout.update(readout_gradient, now);
    readout_bias.update(output_gradient, now);
    epoch_loss += loss * share;
    if (last_of_epoch) {
      if (thread == 0) {
        params.losses[s * params.num_epochs + epoch] = epoch_loss / static_cast<float>(batches);
      }
      epoch_loss = 0.0F;
    }
    epoch = next_epoch;
    within = next_within;
  }

  if (real) {
    for (int d = 0; d < params.layout.num_inputs; ++d) {
      flat[thread * params.layout.num_inputs + d] = unit.weight[d * shape.threads];
    }
    flat[params.layout.bias() + thread] = bias.value;
    flat[params.layout.readout() + thread] = readout.value;
  }
  if (thread == 0) {
    flat[params.layout.readout_bias()] = readout_bias.value;
  }
}

}  // namespace

void dngo_draw_cuda(const DngoDrawParams& params, std::int64_t seeds, CudaStream stream) {
  if (seeds == 0) return;
  const auto each = static_cast<unsigned>(seeds);
  const int blocks = (params.layout.size() + kDrawThreads - 1) / kDrawThreads;
  launch(draw_parameters_kernel, dim3(static_cast<unsigned>(blocks), each), dim3(kDrawThreads), 0,
         stream, params, dngo_bound(params.layout.num_inputs),
         dngo_bound(params.layout.num_hidden));
  if (params.num_epochs == 0 || params.num_points == 0) return;
  launch(draw_order_kernel, dim3(static_cast<unsigned>(params.num_epochs), each),
         dim3(kDrawThreads), sizeof(std::uint64_t) * static_cast<std::size_t>(params.num_points),
         stream, params);
}

std::int64_t dngo_fit_shared_bytes(const DngoFitParams& params) {
  return std::int64_t{4} * FitShape(params.layout, params.num_points).size;
}

void dngo_fit_cuda(const DngoFitParams& params, std::int64_t seeds, CudaStream stream) {
  if (seeds == 0 || params.num_epochs == 0) return;
  const FitShape shape(params.layout, params.num_points);
  const dim3 grid(static_cast<unsigned>(seeds));
  const dim3 block(static_cast<unsigned>(shape.threads));
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(shape.size);
  if (params.batch_size <= 12) {
    launch(fit_kernel<12>, grid, block, bytes, stream, params, shape);
  } else {
    launch(fit_kernel<16>, grid, block, bytes, stream, params, shape);
  }
}

}  // namespace a2v

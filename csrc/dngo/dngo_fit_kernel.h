// SPDX-License-Identifier: Apache-2.0
// dngo fit on one seed, for the instruction set of the including file.
//
// Layout: hidden units are the lanes. Sixteen units are a panel of D + 2 rows (D input weights,
// bias, readout), H padded with zeros, which stay zero: their gradient is. A network of 16 inputs
// and 128 units is 9 KB, with both moments of Adam 28 KB: the whole fit runs out of the first-level
// cache. A step is two passes over the panels: forward, five rows of the batch at a time, then
// backward, with the Adam update fused into each gradient, which is never stored. The batch is
// padded with rows of error zero.
//
// Adam is torch's: bias corrections in double, the square root of the second one outside the root.
#pragma once

#include <cmath>
#include <cstddef>

#include "common/functions.h"
#include "common/simd.h"
#include "dngo/dngo.h"
#include "dngo/dngo_cpu.h"

namespace a2v::A2V_SIMD {

namespace dngo_fit_detail {

constexpr int kRows = 5;    // of the batch in registers: ten accumulators of AVX2
constexpr int kInputs = 4;  // gradients in registers
constexpr int kPaddedBatch = (kMaxDngoBatch + kRows - 1) / kRows * kRows;

constexpr float kFirstDecay = 0.1F;  // 1 - 0.9
constexpr float kSecondKeep = 0.999F;
constexpr float kSecondDecay = 0.001F;
constexpr float kTiny = 1e-8F;

// A network, its moments and the activations of one batch, in the caller's workspace.
struct State {
  int inputs;
  int panels;
  int panel_floats;   // 16 (D + 2)
  float* value;       // [panels, D + 2, 16]
  float* first;       // same, mean of the gradient
  float* second;      // same, mean of its square
  float* activation;  // [panels, kPaddedBatch, 16]
  float* batch;       // [kPaddedBatch, D]
  float scalar[3];    // readout bias: value and moments
};

struct AdamStep {
  V16 rate;   // learning rate / (1 - 0.9^t)
  V16 scale;  // 1 / sqrt(1 - 0.999^t)
};

inline State place(const DngoLayout& layout, float* workspace) {
  State state{};
  state.inputs = layout.num_inputs;
  state.panels = (layout.num_hidden + kLanes - 1) / kLanes;
  state.panel_floats = kLanes * (layout.num_inputs + 2);
  const int network = state.panels * state.panel_floats;
  state.value = workspace;
  state.first = state.value + network;
  state.second = state.first + network;
  state.activation = state.second + network;
  state.batch = state.activation + state.panels * kPaddedBatch * kLanes;
  return state;
}

// Copies between the flat buffer and the panels; `to_panels` names the direction.
template <bool kToPanels>
inline void copy_network(const DngoLayout& layout, float* flat, State& state) {
  const int inputs = layout.num_inputs;
  for (int h = 0; h < layout.num_hidden; ++h) {
    float* panel = state.value + (h / kLanes) * state.panel_floats + h % kLanes;
    for (int row = 0; row < inputs + 2; ++row) {
      float* element = row < inputs    ? flat + static_cast<std::ptrdiff_t>(h) * inputs + row
                       : row == inputs ? flat + layout.bias() + h
                                       : flat + layout.readout() + h;
      if constexpr (kToPanels) {
        panel[row * kLanes] = *element;
      } else {
        *element = panel[row * kLanes];
      }
    }
  }
  if constexpr (kToPanels) {
    state.scalar[0] = flat[layout.readout_bias()];
  } else {
    flat[layout.readout_bias()] = state.scalar[0];
  }
}

A2V_INLINE void adam(V16 gradient, const AdamStep& step, float* value, float* first,
                     float* second) {
  const V16 mean = fma(gradient - load(first), set1(kFirstDecay), load(first));
  const V16 square = fma(set1(kSecondDecay) * gradient, gradient, set1(kSecondKeep) * load(second));
  store(first, mean);
  store(second, square);
  const V16 divisor = fma(sqrt(square), step.scale, set1(kTiny));
  store(value, load(value) - step.rate * (mean / divisor));
}

// Activations of the batch, and the readout of each row in output[r] (16 partial sums).
inline void forward(State& state, int padded, float (&output)[kPaddedBatch][kLanes]) {
  for (int r = 0; r < padded; ++r) {
    store(output[r], zero());
  }
  for (int p = 0; p < state.panels; ++p) {
    const float* panel = state.value + p * state.panel_floats;
    const V16 bias = load(panel + state.inputs * kLanes);
    const V16 readout = load(panel + (state.inputs + 1) * kLanes);
    for (int row = 0; row < padded; row += kRows) {
      V16 z[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        z[r] = bias;
      }
      const float* x = state.batch + row * state.inputs;
      for (int d = 0; d < state.inputs; ++d) {
        const V16 weight = load(panel + d * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          z[r] = fma(set1(x[r * state.inputs + d]), weight, z[r]);
        }
      }
      float* activation = state.activation + (p * kPaddedBatch + row) * kLanes;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const V16 a = tanh_of(z[r]);
        store(activation + r * kLanes, a);
        store(output[row + r], fma(a, readout, load(output[row + r])));
      }
    }
  }
}

template <int kCount>
A2V_INLINE void update_inputs(State& state, const float* delta, int padded, int d, float* value,
                              const AdamStep& step) {
  V16 gradient[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) {
    gradient[i] = zero();
  }
  for (int r = 0; r < padded; ++r) {
    const V16 row = load(delta + r * kLanes);
    const float* x = state.batch + r * state.inputs + d;
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      gradient[i] = fma(set1(x[i]), row, gradient[i]);
    }
  }
  const std::ptrdiff_t offset = value - state.value + d * kLanes;
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) {
    const std::ptrdiff_t at = offset + i * kLanes;
    adam(gradient[i], step, state.value + at, state.first + at, state.second + at);
  }
}

// Gradients and updates of every panel, from the errors 2 (output - target) / B of the rows.
inline void backward(State& state, int padded, const float* error, const AdamStep& step) {
  for (int p = 0; p < state.panels; ++p) {
    float* value = state.value + p * state.panel_floats;
    float* delta = state.activation + p * kPaddedBatch * kLanes;
    const std::ptrdiff_t bias_at = value - state.value + state.inputs * kLanes;
    const std::ptrdiff_t readout_at = bias_at + kLanes;
    const V16 readout = load(state.value + readout_at);
    V16 readout_gradient = zero();
    V16 bias_gradient = zero();
    for (int r = 0; r < padded; ++r) {
      const V16 a = load(delta + r * kLanes);
      const V16 e = set1(error[r]);
      readout_gradient = fma(e, a, readout_gradient);
      const V16 d = e * readout * (set1(1.0F) - a * a);
      bias_gradient = bias_gradient + d;
      store(delta + r * kLanes, d);
    }
    int d = 0;
    for (; d + kInputs <= state.inputs; d += kInputs) {
      update_inputs<kInputs>(state, delta, padded, d, value, step);
    }
    for (; d < state.inputs; ++d) {
      update_inputs<1>(state, delta, padded, d, value, step);
    }
    adam(bias_gradient, step, state.value + bias_at, state.first + bias_at, state.second + bias_at);
    adam(readout_gradient, step, state.value + readout_at, state.first + readout_at,
         state.second + readout_at);
  }
}

inline void update_scalar(State& state, float gradient, float rate, float scale) {
  float& value = state.scalar[0];
  float& mean = state.scalar[1];
  float& square = state.scalar[2];
  mean += (gradient - mean) * kFirstDecay;
  square = kSecondKeep * square + kSecondDecay * gradient * gradient;
  value -= rate * (mean / (__builtin_sqrtf(square) * scale + kTiny));
}

}  // namespace dngo_fit_detail

void dngo_fit(const DngoFitParams& params, std::int64_t seed, float* workspace) {
  using namespace dngo_fit_detail;
  const DngoLayout& layout = params.layout;
  const int inputs = layout.num_inputs;
  const int batch = params.batch_size;
  const int padded = (batch + kRows - 1) / kRows * kRows;
  const float* points = params.points + seed * params.num_points * inputs;
  const float* targets = params.targets + seed * params.num_points;
  float* flat = params.parameters + seed * layout.size();
  State state = place(layout, workspace);
  const std::ptrdiff_t used = dngo_fit_floats(layout);
  for (std::ptrdiff_t i = 0; i < used; ++i) {
    workspace[i] = 0.0F;
  }
  copy_network<true>(layout, flat, state);

  const int batches = params.num_points / batch;
  float output[kPaddedBatch][kLanes];
  float error[kPaddedBatch] = {};
  double first_power = 1.0;
  double second_power = 1.0;
  for (int epoch = 0; epoch < params.num_epochs; ++epoch) {
    const std::int64_t row_of_losses = seed * params.num_epochs + epoch;
    const std::int32_t* order = params.order + row_of_losses * params.num_points;
    float epoch_loss = 0.0F;
    for (int b = 0; b < batches; ++b, order += batch) {
      for (int r = 0; r < batch; ++r) {
        __builtin_memcpy(state.batch + r * inputs,
                         points + static_cast<std::ptrdiff_t>(order[r]) * inputs,
                         sizeof(float) * static_cast<std::size_t>(inputs));
      }
      forward(state, padded, output);
      float loss = 0.0F;
      float bias_gradient = 0.0F;
      const float share = 1.0F / static_cast<float>(batch);
      for (int r = 0; r < batch; ++r) {
        const float difference = sum(load(output[r])) + state.scalar[0] - targets[order[r]];
        loss += difference * difference;
        error[r] = 2.0F * share * difference;
        bias_gradient += error[r];
      }
      epoch_loss += loss * share;
      first_power *= 0.9;
      second_power *= 0.999;
      const auto rate = static_cast<float>(params.learning_rate / (1.0 - first_power));
      const auto scale = static_cast<float>(1.0 / std::sqrt(1.0 - second_power));
      backward(state, padded, error, {set1(rate), set1(scale)});
      update_scalar(state, bias_gradient, rate, scale);
    }
    params.losses[row_of_losses] = epoch_loss / static_cast<float>(batches);
  }
  copy_network<false>(layout, flat, state);
}

}  // namespace a2v::A2V_SIMD

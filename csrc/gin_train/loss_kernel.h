// SPDX-License-Identifier: Apache-2.0
// gin_train, the loss: values and gradients of the node and edge terms, unscaled.
#pragma once

#include "common/gemm.h"
#include "gin_train/plan.h"

namespace a2v::A2V_SIMD {

// Factors that turn sums over a batch into the loss; see arch2vec_fast/pretrain/objective.py.
struct LossScale {
  float node;
  float edge;
  float kl;
};

inline LossScale loss_scale(const GinTrainConfig& config, std::int64_t batch) {
  const float cells = static_cast<float>(batch);
  const float nodes = cells * static_cast<float>(config.num_nodes);
  const float pairs = nodes * static_cast<float>(config.num_nodes);
  const float labels = config.softmax ? nodes : nodes * static_cast<float>(config.num_op_types);
  if (config.elbo) {
    return {1.0F / cells, 1.0F / cells, 0.5F * config.beta / cells};
  }
  return {1.0F / labels, 1.0F / pairs, 0.5F * config.beta / nodes / nodes};
}

struct LossTerm {
  V16 loss;
  V16 gradient;
};

// log(p), at least -100, as torch's binary_cross_entropy has it.
A2V_INLINE V16 log_probability(V16 p) {
  const M16 subnormal = p < set1(1.17549435e-38F);
  const V16 value = log(select(subnormal, p * set1(16777216.0F), p)) -
                    select(subnormal, set1(16.6355324F), zero());
  return select(p < set1(1e-45F), set1(-100.0F), max(set1(-100.0F), value));
}

// log(1 - p), at least -100.
A2V_INLINE V16 log_complement(V16 p) {
  const M16 one = set1(1.0F) - p < set1(1e-30F);
  return select(one, set1(-100.0F), log1p(zero() - select(one, zero(), p)));
}

// Binary cross-entropy of a logit against targets of zero and one. On probabilities it saturates
// where float32 rounds the sigmoid to one: such a term has no gradient.
A2V_INLINE LossTerm binary_term(V16 logit, M16 target, bool logits) {
  const V16 one = set1(1.0F);
  const V16 y = select(target, one, zero());
  if (logits) {
    const V16 e = exp(zero() - absolute(logit));
    const V16 p = select(logit < zero(), e, one) / (one + e);
    return {relu(logit) - logit * y + log1p(e), p - y};
  }
  const V16 p = sigmoid(logit);
  const V16 slope = (one - p) * p;
  const V16 loss = zero() - select(target, log_probability(p), log_complement(p));
  return {loss, (p - y) / max(set1(1e-12F), slope) * slope};
}

// One node: `logits` holds class_panels vectors, `panel` floats apart, and receives the gradient
// times `factor`. Returns the node's loss.
inline float node_loss(const GinTrainConfig& config, int label, float* logits, std::ptrdiff_t panel,
                       float factor) {
  const int panels = panels_of(config.num_classes);
  const auto lanes = [&](int p) {
    const int count = config.num_classes - p * kLanes;
    return mask_from(count >= kLanes ? 0xffffU : (1U << count) - 1);
  };
  const auto target = [&](int p, int index) {
    const int lane = index - p * kLanes;
    return mask_from(index >= 0 && lane >= 0 && lane < kLanes ? 1U << lane : 0U);
  };
  float loss = 0.0F;
  if (!config.softmax) {
    for (int p = 0; p < panels; ++p) {
      float* at = logits + p * panel;
      const LossTerm term = binary_term(load(at), target(p, label - 1), config.logits);
      loss += sum(select(lanes(p), term.loss, zero()));
      store(at, select(lanes(p), term.gradient * set1(factor), zero()));
    }
    return loss;
  }
  // Absent nodes are the last class or, where there is none, count nothing.
  int index = label - 1;
  if (label == 0 && config.num_classes > config.num_op_types) {
    index = config.num_classes - 1;
  }
  float top = -__builtin_inff();
  for (int p = 0; p < panels; ++p) {
    const float here = largest(select(lanes(p), load(logits + p * panel), set1(-__builtin_inff())));
    top = top > here ? top : here;
  }
  if (index >= 0) {
    loss = top - logits[(index / kLanes) * panel + index % kLanes];
  }
  float total = 0.0F;
  for (int p = 0; p < panels; ++p) {
    const V16 e = select(lanes(p), exp(load(logits + p * panel) - set1(top)), zero());
    store(logits + p * panel, e);
    total += sum(e);
  }
  const float counted = index >= 0 ? factor : 0.0F;
  for (int p = 0; p < panels; ++p) {
    const V16 share = load(logits + p * panel) / set1(total);
    const V16 g = share - select(target(p, index), set1(1.0F), zero());
    store(logits + p * panel, g * set1(counted));
  }
  float log_total[kLanes];
  store(log_total, log(set1(total)));
  return index >= 0 ? loss + log_total[0] : 0.0F;
}

}  // namespace a2v::A2V_SIMD

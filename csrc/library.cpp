// SPDX-License-Identifier: Apache-2.0
// Schemas of all operators of arch2vec_fast::, in one place, and the Python module that carries
// them.
//
// The operators reach Python through torch's dispatcher, so the module itself is empty: importing
// it runs the static initialisers behind STABLE_TORCH_LIBRARY. Each op's implementation registers
// itself from its own folder, its fake kernel stands in arch2vec_fast/_fakes.py. Only headers of
// the LibTorch stable ABI are used: see csrc/README.md.

#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

#include "common/cpu_features.h"

namespace {

std::string simd_level() { return a2v::simd_level_name(a2v::simd_level()); }

}  // namespace

STABLE_TORCH_LIBRARY(arch2vec_fast, m) {
  m.def("simd_level() -> str");
  m.def("unpack_cells(Tensor codes, int num_nodes, int num_op_types) -> (Tensor, Tensor)");
  // config, settings: the fields of GinTrainConfig, in order. Returns losses and moments.
  m.def(
      "gin_train(Tensor(a!) parameters, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
      "Tensor(d!) running, Tensor codes, Tensor order, Tensor learning_rate, Tensor seed, "
      "Tensor? noise, Tensor? keep, int batch_size, int first_step, int[] config, "
      "float[] settings) -> (Tensor, Tensor)");
  // The same on CUDA, for tuning: returns the cycles of every block in each TrainPhase too.
  m.def(
      "gin_train_phases(Tensor(a!) parameters, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
      "Tensor(d!) running, Tensor codes, Tensor order, Tensor learning_rate, Tensor seed, "
      "Tensor? noise, Tensor? keep, int batch_size, int first_step, int[] config, "
      "float[] settings) -> (Tensor, Tensor, Tensor)");
  // config: the fields of GinEncodeConfig, in order. output: a GinEncodeOutput. precision: "fp32",
  // "tf32" or "bf16".
  m.def(
      "gin_encode(Tensor codes, Tensor weights, int[] config, int output, str precision) -> "
      "Tensor");
  // The codes that nearest_latent scans, their norms, their frame, their order and the boxes around
  // them; empty on CUDA, which scans the points themselves. visited: bits, one row for all queries
  // or one for each.
  m.def("pack_latents(Tensor points) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "nearest_latent(Tensor points, Tensor codes, Tensor norms, Tensor frame, Tensor order, "
      "Tensor boxes, Tensor queries, Tensor? visited, int k) -> (Tensor, Tensor)");
  // edges: dense weights [B, N, N] or packed codes [B, W]. Gradients that are not wanted are empty.
  m.def(
      "gin_aggregate(Tensor x, Tensor edges, Tensor eps, Tensor? gates, bool successors, "
      "bool predecessors) -> Tensor");
  m.def(
      "gin_aggregate_backward(Tensor out_grad, Tensor x, Tensor edges, Tensor eps, Tensor? gates, "
      "bool successors, bool predecessors) -> (Tensor, Tensor)");
  m.def("inner_product_decode(Tensor z, Tensor? bilinear, Tensor? bias) -> Tensor");
  m.def(
      "inner_product_decode_backward(Tensor logits_grad, Tensor z, Tensor? bilinear, "
      "bool want_bias) -> (Tensor, Tensor, Tensor)");
  m.def(
      "inner_product_loss(Tensor z, Tensor edges, Tensor? bilinear, Tensor? bias, "
      "bool want_gradients) -> (Tensor, Tensor, Tensor, Tensor)");
  // Bayesian optimisation, see dngo/dngo.h. score: a DngoScore.
  m.def(
      "dngo_draw(Tensor seed, int num_inputs, int num_hidden, int num_epochs, int num_points) -> "
      "(Tensor, Tensor)");
  m.def(
      "dngo_fit(Tensor(a!) parameters, Tensor points, Tensor targets, Tensor order, "
      "int num_hidden, int batch_size, float learning_rate) -> Tensor");
  m.def(
      "dngo_evidence(Tensor eigenvalue, Tensor energy, Tensor residual, Tensor start, "
      "int num_points, int num_hidden, bool released) -> Tensor");
  m.def(
      "dngo_acquire(Tensor candidates, Tensor weight, Tensor bias, Tensor coefficients, "
      "Tensor factor, Tensor noise, Tensor target, Tensor? visited, int num_results, int score, "
      "bool predictions) -> (Tensor, Tensor, Tensor, Tensor)");
  // Gaussian processes, see gp/gp.h.
  m.def(
      "gp_extend(Tensor panels, Tensor norms, Tensor starts, Tensor colours, Tensor weights, "
      "int num_colours, Tensor rows, Tensor first, Tensor last, Tensor factor, Tensor kernel, "
      "Tensor coefficients, Tensor(a!) solved, Tensor(b!) explained, Tensor(c!) mean) -> ()");
  m.def(
      "gp_acquire(Tensor mean, Tensor explained, Tensor scale, Tensor target, Tensor? visited, "
      "int num_candidates, int num_results, bool predictions) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CompositeExplicitAutograd, m) {
  m.impl("simd_level", TORCH_BOX(&simd_level));
}

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_C",
                                   "Operators of arch2vec_fast (see torch.ops.arch2vec_fast).",
                                   -1,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}

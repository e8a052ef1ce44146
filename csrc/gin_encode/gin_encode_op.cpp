// SPDX-License-Identifier: Apache-2.0
// The operator arch2vec_fast::gin_encode on the CPU: checks, allocation, threads. Schema in
// library.cpp.

#include "gin_encode/gin_encode_op.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/cpu_features.h"
#include "gin_encode/equal_cells.h"
#include "gin_encode/gin_encoder.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Cells a thread takes at least where a cell costs half a microsecond.
constexpr std::int64_t kCheapGrain = 2048;

const a2v::EncodeKernels& choose_kernels(const std::string& precision) {
  using a2v::SimdLevel;
  const SimdLevel level = a2v::simd_level();
  A2V_CHECK(precision == "fp32" || precision == "bf16", "precision: ", precision,
            " is for CUDA; use fp32 or bf16 on the CPU");
#if defined(__x86_64__)
  const bool bfloat16 = level == SimdLevel::kAvx512 && __builtin_cpu_supports("avx512bf16");
  A2V_CHECK(precision == "fp32" || bfloat16,
            "precision: bf16 needs a processor with AVX-512 BF16, in use is ",
            a2v::simd_level_name(level), "; use fp32");
  if (precision == "bf16") return a2v::avx512bf16::kEncodeKernels;
  if (level == SimdLevel::kAvx512) return a2v::avx512::kEncodeKernels;
  if (level == SimdLevel::kAvx2) return a2v::avx2::kEncodeKernels;
#else
  A2V_CHECK(precision == "fp32", "precision: bf16 needs an x86-64 processor with AVX-512 BF16; ",
            "use fp32");
#endif
  return a2v::scalar::kEncodeKernels;
}

// The first cell that is none of the layout, or `num_cells`.
std::int64_t first_corrupt(const a2v::CellLayout& layout, const std::int64_t* codes,
                           std::int64_t num_cells) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(codes);
  std::atomic<std::int64_t> corrupt{num_cells};
  torch::stable::parallel_for(0, num_cells, 1 << 14, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      if (!a2v::is_well_formed(layout, words + b * layout.words())) {
        std::int64_t seen = corrupt.load();
        while (b < seen && !corrupt.compare_exchange_weak(seen, b)) {
        }
        return;
      }
    }
  });
  return corrupt;
}

// Threads take pieces of the cells as they come free, because cells with fewer nodes cost less.
void encode_all(const a2v::GinEncodeParams& params, const a2v::EncodeKernels& kernels,
                const std::vector<std::int64_t>* cells) {
  const auto threads = static_cast<std::int64_t>(torch::stable::get_num_threads());
  const a2v::GinEncoder encoder(params, kernels, static_cast<int>(threads), cells);
  const std::int64_t pieces = encoder.num_pieces();
  std::atomic<std::int64_t> next{0};
  torch::stable::parallel_for(
      0, std::min(threads, pieces), 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t member = first; member < last; ++member) {
          a2v::EncodeWorker worker(encoder);
          for (std::int64_t piece = next++; piece < pieces; piece = next++) {
            worker.encode(encoder.piece(piece), encoder.piece(piece + 1));
          }
        }
      });
}

// Each of the cells that are equal once; the others take its result.
void encode_merged(const a2v::GinEncodeParams& params, const a2v::EncodeKernels& kernels) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(params.codes);
  a2v::EqualCells cells(params.config.layout(), params.config.num_layers, words, params.num_cells);
  const auto for_all = [&](auto&& work) {
    torch::stable::parallel_for(0, params.num_cells, kCheapGrain, work);
  };
  for_all([&](std::int64_t first, std::int64_t last) { cells.sign(first, last); });
  cells.link();
  for_all([&](std::int64_t first, std::int64_t last) { cells.confirm(first, last); });
  cells.collect();
  encode_all(params, kernels, &cells.originals());
  for_all([&](std::int64_t first, std::int64_t last) {
    a2v::copy_results(params, cells, first, last);
  });
}

Tensor gin_encode(const Tensor& codes, const Tensor& weights, std::vector<std::int64_t> config,
                  std::int64_t output, std::string precision) {
  const a2v::GinEncodeConfig c = a2v::check_gin_encode(codes, weights, config, output);
  const a2v::EncodeKernels& kernels = choose_kernels(precision);
  const Tensor packed = torch::stable::contiguous(codes);
  const Tensor flat = torch::stable::contiguous(weights);
  const std::int64_t num_cells = packed.size(0);
  const auto* words = packed.const_data_ptr<std::int64_t>();
  const std::int64_t corrupt = first_corrupt(c.layout(), words, num_cells);
  A2V_CHECK(corrupt == num_cells, "codes: cell ", corrupt, " is not a cell of ", c.num_nodes,
            " nodes and ", c.num_op_types, " operation types; check the layout it was packed with");
  const auto what = static_cast<a2v::GinEncodeOutput>(output);
  Tensor result = torch::stable::new_empty(flat, a2v::gin_encode_result_shape(c, what, num_cells),
                                           ScalarType::Float);
  if (num_cells == 0) {
    return result;
  }
  const a2v::GinEncodeParams params{.config = c,
                                    .output = what,
                                    .precision = a2v::GinEncodePrecision::kFloat32,
                                    .num_cells = num_cells,
                                    .codes = words,
                                    .weights = flat.const_data_ptr<float>(),
                                    .result = result.mutable_data_ptr<float>()};
  if (a2v::merges_cells(params)) {
    encode_merged(params, kernels);
  } else {
    encode_all(params, kernels, nullptr);
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(arch2vec_fast, CPU, m) { m.impl("gin_encode", TORCH_BOX(&gin_encode)); }

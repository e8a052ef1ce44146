// SPDX-License-Identifier: Apache-2.0
// cell_unpack.cu against cell_unpack_scalar.cpp: same bits on every layout and odd batch size; NaN
// for corrupt cells and for no others.

#include "cell_unpack/cell_unpack.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <vector>

namespace {

using a2v::CellLayout;
using cuda_on_cpu::Guarded;

std::vector<std::int64_t> random_codes(const CellLayout& layout, std::size_t cells) {
  std::mt19937_64 random(cells);
  const auto width = static_cast<std::size_t>(layout.words());
  std::vector<std::uint64_t> words(cells * width);
  for (std::size_t b = 0; b < cells; ++b) {
    a2v::Cell cell;
    for (int v = 0; v < layout.num_nodes; ++v) {
      cell.preds[v] = static_cast<std::uint16_t>(random() & ((1U << v) - 1U));
      cell.label[v] =
          static_cast<std::uint8_t>(random() % (static_cast<unsigned>(layout.num_op_types) + 1U));
    }
    a2v::pack_cell(layout, cell, &words[b * width]);
  }
  return {words.begin(), words.end()};
}

void require(bool condition, const char* what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

// `corrupt`: index of a cell that is made no cell of the layout, or -1.
void unpacks(const CellLayout& layout, std::size_t cells, std::ptrdiff_t corrupt) {
  const auto nodes = static_cast<std::size_t>(layout.num_nodes);
  const auto op_types = static_cast<std::size_t>(layout.num_op_types);
  const auto width = static_cast<std::size_t>(layout.words());
  std::vector<std::int64_t> codes = random_codes(layout, cells);
  std::vector<float> want_adjacency(cells * nodes * nodes);
  std::vector<float> want_ops(cells * nodes * op_types);
  a2v::CellUnpackParams params{layout, static_cast<std::int64_t>(cells), codes.data(),
                               want_adjacency.data(), want_ops.data()};
  a2v::cell_unpack_scalar(params, 0, params.num_cells);
  if (corrupt >= 0) {
    const auto first = static_cast<std::size_t>(corrupt);
    codes[(first + 1) * width - 1] = -1;  // bits above the layout's, or a label above F
    std::fill_n(want_adjacency.begin() + corrupt * static_cast<std::ptrdiff_t>(nodes * nodes),
                nodes * nodes, NAN);
    std::fill_n(want_ops.begin() + corrupt * static_cast<std::ptrdiff_t>(nodes * op_types),
                nodes * op_types, NAN);
  }
  cuda_on_cpu::for_each_schedule([&] {
    Guarded<std::int64_t> device_codes(codes);
    Guarded<float> adjacency(want_adjacency.size());
    Guarded<float> ops(want_ops.size());
    params.codes = device_codes.data();
    params.adjacency = adjacency.data();
    params.node_ops = ops.data();
    a2v::cell_unpack_cuda(params, nullptr);
    adjacency.check();
    ops.check();
    const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
    for (std::size_t i = 0; i < adjacency.size(); ++i) {
      require(same(adjacency[i], want_adjacency[i]), "adjacency differs");
    }
    for (std::size_t i = 0; i < ops.size(); ++i) {
      require(same(ops[i], want_ops[i]), "node_ops differ");
    }
  });
}

}  // namespace

int main() {
  try {
    for (const CellLayout layout : {CellLayout{7, 5}, CellLayout{8, 7}, CellLayout{11, 11},
                                    CellLayout{2, 1}, CellLayout{13, 20}, CellLayout{16, 254}}) {
      for (const std::size_t cells : {0, 1, 31, 33, 300}) unpacks(layout, cells, -1);
      unpacks(layout, 70, 41);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "FAILED: %s\n", error.what());
    return 1;
  }
  std::puts("cell_unpack_kernel_test passed");
}

// SPDX-License-Identifier: Apache-2.0
// unpack_cells on the GPU; formula in cell_unpack.h. The template of a small kernel file.
//
// Threads: one warp for 32 consecutive cells. Each lane reads the words of one cell into shared
// memory and checks them; then the warp walks both outputs of its cells as one contiguous range, so
// that every store instruction writes 128 consecutive bytes. Bound by those stores, 4 N (N + F)
// bytes a cell (336 for NAS-Bench-101).
//
// A corrupt cell cannot raise: the host would have to wait for the kernel, which a captured graph
// forbids. All its outputs are NaN, and so is whatever a model computes from them.

#include "cell_unpack/cell_unpack.h"
#include "common/device.cuh"
#include "common/launch.cuh"

namespace a2v {
namespace {

constexpr int kWarps = 8;
constexpr int kCells = 32;  // of a warp

// Division of numbers below 2^17 by a constant of the launch: one multiplication.
struct Divisor {
  unsigned value;
  unsigned reciprocal;  // ceil(2^32 / value), or 0 for value 1

  explicit Divisor(int divisor)
      : value(static_cast<unsigned>(divisor)),
        reciprocal(value == 1 ? 0U : 0xffffffffU / value + 1U) {}

  __device__ unsigned quotient(unsigned x) const {
    return value == 1 ? x : __umulhi(x, reciprocal);
  }
};

struct Sizes {
  Divisor edges;     // N * N
  Divisor nodes;     // N
  Divisor ops;       // N * F
  Divisor op_types;  // F
  int words;
  int edge_bits;
  int op_bits;
};

Sizes sizes_of(const CellLayout& layout) {
  return {
      .edges = Divisor(layout.num_nodes * layout.num_nodes),
      .nodes = Divisor(layout.num_nodes),
      .ops = Divisor(layout.num_nodes * layout.num_op_types),
      .op_types = Divisor(layout.num_op_types),
      .words = layout.words(),
      .edge_bits = layout.edge_bits(),
      .op_bits = layout.op_bits(),
  };
}

__global__ void __launch_bounds__(kWarps* kWarpSize)
    cell_unpack_kernel(CellUnpackParams params, Sizes sizes) {
  A2V_SHARED(std::uint64_t[kWarps * kCells * kMaxWords], all_words);
  const unsigned lane = threadIdx.x % kWarpSize;
  const unsigned warp = threadIdx.x / kWarpSize;
  const std::int64_t first = (std::int64_t{blockIdx.x} * kWarps + warp) * kCells;
  if (first >= params.num_cells) return;
  const std::int64_t left = params.num_cells - first;
  const unsigned cells = left < kCells ? static_cast<unsigned>(left) : kCells;

  std::uint64_t* words = all_words + warp * kCells * kMaxWords;
  bool corrupt = false;
  if (lane < cells) {
    const std::int64_t* code = params.codes + (first + lane) * sizes.words;
    for (int w = 0; w < sizes.words; ++w) {
      words[lane * kMaxWords + static_cast<unsigned>(w)] = static_cast<std::uint64_t>(code[w]);
    }
    corrupt = !is_well_formed(params.layout, words + lane * kMaxWords);
  }
  const unsigned corrupt_cells = __ballot_sync(kWholeWarp, corrupt ? 1 : 0);
  __syncwarp();
  const float nan = __uint_as_float(0x7fc00000U);

  float* adjacency = params.adjacency + first * sizes.edges.value;
  for (unsigned i = lane; i < cells * sizes.edges.value; i += kWarpSize) {
    const unsigned cell = sizes.edges.quotient(i);
    const unsigned entry = i - cell * sizes.edges.value;
    const unsigned x = sizes.nodes.quotient(entry);
    const unsigned y = entry - x * sizes.nodes.value;
    const unsigned bit = x < y ? x + y * (y - 1) / 2 : 0;
    const bool edge = x < y && (words[cell * kMaxWords + bit / 64] >> bit % 64 & 1U) != 0;
    adjacency[i] = (corrupt_cells >> cell & 1U) != 0 ? nan : edge ? 1.0F : 0.0F;
  }

  float* node_ops = params.node_ops + first * sizes.ops.value;
  for (unsigned i = lane; i < cells * sizes.ops.value; i += kWarpSize) {
    const unsigned cell = sizes.ops.quotient(i);
    const unsigned entry = i - cell * sizes.ops.value;
    const unsigned node = sizes.op_types.quotient(entry);
    const unsigned op = entry - node * sizes.op_types.value;
    const unsigned label =
        get_bits(words + cell * kMaxWords, sizes.edge_bits + static_cast<int>(node) * sizes.op_bits,
                 sizes.op_bits);
    node_ops[i] = (corrupt_cells >> cell & 1U) != 0 ? nan : label == op + 1 ? 1.0F : 0.0F;
  }
}

}  // namespace

void cell_unpack_cuda(const CellUnpackParams& params, CudaStream stream) {
  if (params.num_cells == 0) return;
  constexpr std::int64_t kCellsPerBlock = kWarps * kCells;
  const std::int64_t blocks = (params.num_cells + kCellsPerBlock - 1) / kCellsPerBlock;
  launch(cell_unpack_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kWarps * kWarpSize), 0,
         stream, params, sizes_of(params.layout));
}

}  // namespace a2v

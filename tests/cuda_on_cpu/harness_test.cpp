// SPDX-License-Identifier: Apache-2.0
// The harness itself: it computes what CUDA would, and it finds the mistakes it is there for. Each
// broken kernel below differs from a correct one in the single line its name says.

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "common/device.cuh"
#include "common/launch.cuh"

namespace {

using cuda_on_cpu::for_each_schedule;
using cuda_on_cpu::Guarded;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

// Runs a test that must end in an error whose message holds `words`.
void expect_error(const char* words, const std::function<void()>& test) {
  try {
    test();
  } catch (const std::exception& error) {
    expect(std::string(error.what()).find(words) != std::string::npos,
           std::string("expected an error with \"") + words + "\", got: " + error.what());
    return;
  }
  expect(false, std::string("expected an error with \"") + words + "\", got none");
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

void require(bool condition, const char* what) {
  if (!condition) throw cuda_on_cpu::Error(what);
}

// ---- A reduction over blocks: warp shuffle, shared memory, barrier of the grid
// ----------------------

enum class Bug { kNone, kNoBlockBarrier, kNoGridBarrier, kDivergentBarrier, kTwoBarriers };

template <Bug kBug>
__global__ void column_sums_kernel(const float* x, float* partial, float* next_sum, int rows,
                                   int columns) {
  A2V_SHARED(float[32], warp_sums);
  const auto column = static_cast<int>(blockIdx.x);
  const auto thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int row = thread; row < rows; row += static_cast<int>(blockDim.x)) {
    sum += x[row * columns + column];
  }
  sum = a2v::warp_sum(sum);
  if (thread % 32 == 0) warp_sums[thread / 32] = sum;
  if constexpr (kBug == Bug::kDivergentBarrier) {
    if (thread < 64) __syncthreads();
    a2v::grid_sync();
  } else if constexpr (kBug == Bug::kTwoBarriers) {
    if (thread < 64) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if constexpr (kBug != Bug::kNoBlockBarrier) {
    __syncthreads();
  }
  if (thread < 32) {
    const int warps = static_cast<int>(blockDim.x) / 32;
    const float total = a2v::warp_sum(thread < warps ? warp_sums[thread] : 0.0F);
    if (thread == 0) partial[column] = total;
  }
  if constexpr (kBug != Bug::kNoGridBarrier) a2v::grid_sync();
  if (thread == 0) next_sum[column] = a2v::load_cg(&partial[(column + 1) % columns]);
}

template <Bug kBug>
void column_sums_agree() {
  constexpr int kRows = 217;
  constexpr int kColumns = 7;
  const std::vector<float> x = random_values(std::size_t{kRows} * kColumns, 3);
  for_each_schedule([&] {
    Guarded<float> partial(kColumns);
    Guarded<float> next_sum(kColumns);
    a2v::launch_cooperative(column_sums_kernel<kBug>, kColumns, 128, 0, nullptr, x.data(),
                            partial.data(), next_sum.data(), kRows, kColumns);
    partial.check();
    next_sum.check();
    for (int c = 0; c < kColumns; ++c) {
      double want = 0;
      for (int r = 0; r < kRows; ++r) {
        want += x[static_cast<std::size_t>(r * kColumns + (c + 1) % kColumns)];
      }
      require(std::abs(want - next_sum[static_cast<std::size_t>(c)]) < 1e-4, "wrong sum");
    }
  });
}

// ---- Groups of blocks that synchronise among themselves, many times
// -------------------------------

template <bool kBarrier>
__global__ void group_scan_kernel(unsigned* barriers, int* values, int blocks_each, int rounds) {
  const int group = static_cast<int>(blockIdx.x) / blocks_each;
  const int rank = static_cast<int>(blockIdx.x) % blocks_each;
  int* mine = values + 2 * group * blocks_each;  // double-buffered
  for (int round = 0; round < rounds; ++round) {
    int* from = mine + (round % 2) * blocks_each;
    int* to = mine + ((round + 1) % 2) * blocks_each;
    if (threadIdx.x == 0) {
      to[rank] = a2v::load_cg(&from[(rank + 1) % blocks_each]) + 1;
    }
    if constexpr (kBarrier) {
      a2v::group_sync(&barriers[group], static_cast<unsigned>(rank),
                      static_cast<unsigned>(blocks_each));
    }
  }
}

template <bool kBarrier>
void groups_synchronise() {
  constexpr int kGroups = 3;
  constexpr int kBlocks = 5;
  constexpr int kRounds = 12;
  for_each_schedule([&] {
    Guarded<unsigned> barriers(std::vector<unsigned>(kGroups, 0));
    std::vector<int> start(2 * kGroups * kBlocks, 0);
    for (std::size_t g = 0; g < kGroups; ++g) {
      for (std::size_t r = 0; r < kBlocks; ++r)
        start[2 * g * kBlocks + r] = static_cast<int>(100 * r);
    }
    Guarded<int> values(start);
    a2v::launch_cooperative(group_scan_kernel<kBarrier>, kGroups * kBlocks, 33, 0, nullptr,
                            barriers.data(), values.data(), kBlocks, kRounds);
    barriers.check();
    values.check();
    for (std::size_t g = 0; g < kGroups; ++g) {
      for (int r = 0; r < kBlocks; ++r) {
        const int want = 100 * ((r + kRounds) % kBlocks) + kRounds;
        require(values[2 * g * kBlocks + static_cast<std::size_t>(r)] == want, "stale value");
      }
    }
  });
}

// ---- Asynchronous copies, double-buffered
// -----------------------------------------------------------

// kPending: copies that may still be under way where the data are read; 1 is right, 2 too lax.
template <int kPending>
__global__ void copy_kernel(const float* from, float* to, int tiles) {
  A2V_DYN_SMEM(float, buffer);  // [2][32][4]
  const auto lane = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < tiles) {
      a2v::cp_async_16(buffer + tile % 2 * 128 + lane * 4, from + tile * 128 + lane * 4);
    }
    a2v::cp_async_commit();
  };
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    a2v::cp_async_wait<kPending>();
    __syncthreads();
    const int other = 31 - lane;
    for (int i = 0; i < 4; ++i) {
      to[tile * 128 + other * 4 + i] = buffer[tile % 2 * 128 + other * 4 + i];
    }
    __syncthreads();
  }
  a2v::cp_async_wait<0>();
}

template <int kPending>
void copies_arrive() {
  constexpr int kTiles = 5;
  const std::vector<float> from = random_values(kTiles * 128, 5);
  alignas(16) static float aligned[kTiles * 128];
  std::copy(from.begin(), from.end(), aligned);
  for_each_schedule([&] {
    Guarded<float> to(kTiles * 128);
    a2v::launch(copy_kernel<kPending>, 1, 32, 2 * 128 * sizeof(float), nullptr,
                static_cast<const float*>(aligned), to.data(), kTiles);
    to.check();
    for (std::size_t i = 0; i < to.size(); ++i) require(to[i] == from[i], "not copied");
  });
}

__global__ void forgotten_copy_kernel(const float* from) {
  A2V_DYN_SMEM(float, buffer);
  a2v::cp_async_16(buffer, from);
}

// ---- Tensor cores: D = A B, one warp, in three precisions
// -------------------------------------------

enum class Product { kTf32, k3xTf32, kBf16, kUnrounded };

template <Product kProduct>
__global__ void product_kernel(const float* a, const float* b, float* d, int depth) {
  const auto lane = static_cast<int>(threadIdx.x);
  const int g = lane / 4;
  const int t = lane % 4;
  float sum[4] = {};
  if constexpr (kProduct == Product::kBf16) {
    for (int k = 0; k < depth; k += 16) {
      std::uint32_t a_words[4];
      std::uint32_t b_words[2];
      for (int i = 0; i < 4; ++i) {
        const float* at = a + (g + i % 2 * 8) * depth + k + 2 * t + i / 2 * 8;
        a_words[i] = a2v::pack_bf16(at[0], at[1]);
      }
      for (int i = 0; i < 2; ++i) {
        const float* at = b + (k + 2 * t + i * 8) * 8 + g;
        b_words[i] = a2v::pack_bf16(at[0], at[8]);
      }
      a2v::mma_m16n8k16_bf16(sum, a_words, b_words);
    }
  } else {
    for (int k = 0; k < depth; k += 8) {
      float a_high[4], a_low[4], b_high[2], b_low[2];
      for (int i = 0; i < 4; ++i) {
        const a2v::SplitTf32 split =
            a2v::split_tf32(a[(g + i % 2 * 8) * depth + k + t + i / 2 * 4]);
        a_high[i] = kProduct == Product::kUnrounded ? 0.1F : split.high;
        a_low[i] = split.low;
      }
      for (int i = 0; i < 2; ++i) {
        const a2v::SplitTf32 split = a2v::split_tf32(b[(k + t + i * 4) * 8 + g]);
        b_high[i] = split.high;
        b_low[i] = split.low;
      }
      if constexpr (kProduct == Product::k3xTf32) {
        a2v::mma_m16n8k8_3xtf32(sum, a_high, a_low, b_high, b_low);
      } else {
        a2v::mma_m16n8k8_tf32(sum, a_high, b_high);
      }
    }
  }
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// The relative error lies between what the precision must and what it can lose.
template <Product kProduct>
void products_agree(double least, double most) {
  constexpr std::size_t kDepth = 48;
  const std::vector<float> a = random_values(16 * kDepth, 7);
  const std::vector<float> b = random_values(kDepth * 8, 8);
  for_each_schedule([&] {
    Guarded<float> d(128);
    a2v::launch(product_kernel<kProduct>, 1, 32, 0, nullptr, a.data(), b.data(), d.data(),
                static_cast<int>(kDepth));
    d.check();
    double error = 0;
    double norm = 0;
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t j = 0; j < 8; ++j) {
        double want = 0;
        for (std::size_t k = 0; k < kDepth; ++k) want += double{a[i * kDepth + k]} * b[k * 8 + j];
        error += (want - d[i * 8 + j]) * (want - d[i * 8 + j]);
        norm += want * want;
      }
    }
    const double relative = std::sqrt(error / norm);
    require(relative >= least && relative <= most, "product out of tolerance");
  });
}

__global__ void transpose_by_ldmatrix_kernel(const std::uint32_t* from, std::uint32_t* to) {
  A2V_SHARED(uint4[32], rows);
  const unsigned lane = threadIdx.x;
  rows[lane] =
      make_uint4(from[4 * lane], from[4 * lane + 1], from[4 * lane + 2], from[4 * lane + 3]);
  __syncwarp();
  std::uint32_t words[4];
  a2v::ldmatrix_x4(words, &rows[lane]);
  for (unsigned i = 0; i < 4; ++i) to[32 * i + lane] = words[i];
}

void ldmatrix_keeps_rows() {
  std::vector<std::uint32_t> from(128);
  for (std::uint32_t i = 0; i < 128; ++i) from[i] = i;
  Guarded<std::uint32_t> to(128);
  a2v::launch(transpose_by_ldmatrix_kernel, 1, 32, 0, nullptr, from.data(), to.data());
  to.check();
  for (std::uint32_t i = 0; i < 128; ++i) expect(to[i] == i, "ldmatrix: word of another row");
}

// ---- Warp collectives, atomics, intrinsics
// ----------------------------------------------------------

__global__ void collectives_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int ok = 1;
  ok &= __reduce_add_sync(0xffffffffU, lane) == 496 ? 1 : 0;
  ok &= __reduce_max_sync(0xffffffffU, lane) == 31 ? 1 : 0;
  ok &= __reduce_min_sync(0xffffffffU, lane + 5) == 5 ? 1 : 0;
  ok &= __ballot_sync(0xffffffffU, lane % 2) == 0xaaaaaaaaU ? 1 : 0;
  ok &= __all_sync(0xffffffffU, lane < 32) != 0 && __any_sync(0xffffffffU, lane == 9) != 0 ? 1 : 0;
  ok &= __shfl_up_sync(0xffffffffU, lane, 3) == (lane < 3 ? lane : lane - 3) ? 1 : 0;
  ok &= __shfl_down_sync(0xffffffffU, lane, 3, 8) == (lane % 8 < 5 ? lane + 3 : lane) ? 1 : 0;
  ok &= __shfl_sync(0xffffffffU, lane, 2, 16) == lane / 16 * 16 + 2 ? 1 : 0;
  ok &= __shfl_xor_sync(0xffffffffU, lane, 16) == (lane ^ 16) ? 1 : 0;
  const unsigned half = lane < 16 ? 0x0000ffffU : 0xffff0000U;
  ok &= __reduce_add_sync(half, 1) == 16 ? 1 : 0;  // two halves, independent
  ok &= __syncthreads_count(lane < 7) == 7 && __syncthreads_or(lane == 31) == 1 &&
                __syncthreads_and(lane < 31) == 0
            ? 1
            : 0;
  atomicAdd(&out[0], ok);
  atomicMax(&out[1], lane);
  atomicMin(&out[2], lane - 4);
  atomicCAS(&out[3], 7, 8);
  atomicExch(&out[4], 5);
}

void collectives_agree() {
  for_each_schedule([] {
    Guarded<int> out(std::vector<int>{0, 0, 0, 7, 0});
    a2v::launch(collectives_kernel, 1, 32, 0, nullptr, out.data());
    out.check();
    require(out[0] == 32 && out[1] == 31 && out[2] == -4 && out[3] == 8 && out[4] == 5,
            "wrong collective");
  });
}

__global__ void wrong_mask_kernel() { __syncwarp(threadIdx.x < 16 ? 0xffffffffU : 0xffff0000U); }

__global__ void stray_write_kernel(float* out, int count) {
  out[threadIdx.x] = static_cast<float>(count);
}

// Reads one element past the end: under AddressSanitizer only (`harness_test overrun` must die).
__global__ void shared_overrun_kernel(float* out) {
  A2V_SHARED(float[32], values);
  values[threadIdx.x] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x + 1];
}

void finds_mistakes() {
  expect_error("wrong sum", column_sums_agree<Bug::kNoBlockBarrier>);
  expect_error("wrong sum", column_sums_agree<Bug::kNoGridBarrier>);
  expect_error("deadlock", column_sums_agree<Bug::kDivergentBarrier>);
  expect_error("divergent barrier", column_sums_agree<Bug::kTwoBarriers>);
  expect_error("stale value", groups_synchronise<false>);
  expect_error("not copied", copies_arrive<2>);
  alignas(16) static float aligned[8] = {};
  expect_error("before cp_async_wait", [] {
    a2v::launch(forgotten_copy_kernel, 1, 1, 16, nullptr, static_cast<const float*>(aligned));
  });
  expect_error("not 16-byte aligned", [] {
    a2v::launch(forgotten_copy_kernel, 1, 1, 16, nullptr, static_cast<const float*>(aligned + 1));
  });
  expect_error("not rounded", [] { products_agree<Product::kUnrounded>(0, 1); });
  expect_error("another mask", [] { a2v::launch(wrong_mask_kernel, 1, 32, 0, nullptr); });
  expect_error("outside an array", [] {
    Guarded<float> out(30);
    a2v::launch(stray_write_kernel, 1, 32, 0, nullptr, out.data(), 1);
    out.check();
  });
  expect_error("not started by launch_cooperative", [] {
    const float x = 0;
    float partial = 0;
    float sum = 0;
    a2v::launch(column_sums_kernel<Bug::kNone>, 1, 32, 0, nullptr, &x, &partial, &sum, 1, 1);
  });
  expect_error("invalid launch", [] { a2v::launch(wrong_mask_kernel, 1, 2048, 0, nullptr); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "overrun") {
    std::vector<float> out(32);
    a2v::launch(shared_overrun_kernel, 1, 32, 0, nullptr, out.data());
    return 0;
  }
  column_sums_agree<Bug::kNone>();
  groups_synchronise<true>();
  copies_arrive<1>();
  products_agree<Product::kTf32>(1e-5, 1e-3);
  products_agree<Product::k3xTf32>(0, 1e-6);
  products_agree<Product::kBf16>(1e-4, 1e-2);
  ldmatrix_keeps_rows();
  collectives_agree();
  finds_mistakes();
  std::puts("harness_test passed");
}

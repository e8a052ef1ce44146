// SPDX-License-Identifier: Apache-2.0
// The names of csrc/common/device.cuh and launch.cuh for cuda_on_cpu.hpp. Stricter than the
// hardware where that finds errors: asynchronous copies arrive as late as allowed, and tensor cores
// refuse operands that were not rounded.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "builtins.hpp"

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace cuda_on_cpu {

// The block's variable that `tag` stands for.
template <class T>
T& shared_variable(const void* tag) {
  Block& block = *self().block;
  SharedArray& memory = block.static_shared[tag];
  if (memory == nullptr) {
    memory = shared_array(sizeof(T), std::max<std::size_t>(alignof(T), 16));
    block.static_bytes += sizeof(T);
    if (block.static_bytes > process().device.max_static_shared_bytes) {
      fail("more than 48 KB of A2V_SHARED; use A2V_DYN_SMEM");
    }
  }
  return *reinterpret_cast<T*>(memory.get());
}

template <class T>
T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
  return reinterpret_cast<T*>(self().block->dynamic_shared.get());
}

inline void check_aligned(const void* address, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) {
    fail(what, ": address is not 16-byte aligned");
  }
}

// As operands of the tensor cores: what the hardware would drop must have been rounded away.
inline float tf32_operand(float x) {
  if (!std::isnan(x) && (std::bit_cast<std::uint32_t>(x) & 0x1fffU) != 0) {
    fail("tf32 operand not rounded: pass it through to_tf32 or split_tf32");
  }
  return x;
}

inline float bf16_to_float(std::uint32_t half) { return std::bit_cast<float>(half << 16); }

inline std::uint32_t float_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return 0x7fffU;
  return (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
}

// fp16, by way of the compiler's own type: rounds to nearest even, keeps subnormal numbers.
inline float half_to_float(std::uint32_t half) {
  return static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(half)));
}

inline std::uint32_t float_to_half(float x) {
  return std::bit_cast<std::uint16_t>(static_cast<_Float16>(x));
}

// D += A B, operands of 16 bits that `to_float` reads.
template <class ToFloat>
void multiply_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                       ToFloat to_float, const Where& where) {
  using Fragment = std::array<std::uint32_t, 6>;
  const Fragment mine{a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned lane = self().lane();
  const auto result = exchange(0xffffffffU, mine, where, [&](auto of_lane) {
    std::array<float, 4> sum{d[0], d[1], d[2], d[3]};
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned half = k / 8;        // of the fragment's two halves of k
      const unsigned pair = k % 8 / 2;    // lane of the quad
      const unsigned shift = k % 2 * 16;  // half of the word
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned column = lane % 4 * 2 + i % 2;
        const std::uint32_t row_of_a = of_lane(lane / 4 * 4 + pair)[i / 2 + 2 * half];
        const std::uint32_t column_of_b = of_lane(column * 4 + pair)[4 + half];
        sum[i] += to_float(row_of_a >> shift & 0xffffU) * to_float(column_of_b >> shift & 0xffffU);
      }
    }
    return sum;
  });
  for (unsigned i = 0; i < 4; ++i) d[i] = result[i];
}

}  // namespace cuda_on_cpu

// One variable a block for each place and template instance that this stands in.
#define A2V_SHARED(T, name)                                          \
  std::type_identity_t<T>& name = []() -> std::type_identity_t<T>& { \
    static const char tag{};                                         \
    return ::cuda_on_cpu::shared_variable<T>(&tag);                  \
  }()
#define A2V_DYN_SMEM(T, name) T* name = ::cuda_on_cpu::dynamic_shared<T>()

namespace a2v {

using CudaStream = CUstream_st*;

inline constexpr unsigned kWholeWarp = 0xffffffffU;
inline constexpr int kWarpSize = 32;

inline int thread_index() { return static_cast<int>(threadIdx.x); }

// ---- Memory shared with other blocks ----

template <class T>
T load_cg(const T* address) {
  return *address;
}

template <class T>
void store_cg(T* address, std::type_identity_t<T> value) {
  *address = value;
}

inline void store_release(unsigned* address, unsigned value) {
  ::cuda_on_cpu::may_interleave();
  *address = value;
}

inline unsigned load_acquire(const unsigned* address) {
  ::cuda_on_cpu::may_interleave();
  return *address;
}

inline unsigned add_release(unsigned* address, unsigned value) { return atomicAdd(address, value); }

inline void wait_for_flip(const unsigned* address, unsigned before,
                          const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::wait_until([=] { return ((*address ^ before) & 0x80000000U) != 0; }, where);
}

inline void group_sync(unsigned* barrier, unsigned rank, unsigned num_blocks,
                       const CudaWhere& where = CudaWhere::current()) {
  if (!::cuda_on_cpu::process().grid->cooperative && num_blocks > 1) {
    ::cuda_on_cpu::fail("group_sync in a kernel not started by launch_cooperative");
  }
  __syncthreads(where);
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    const unsigned arrival = rank == 0 ? 0x80000000U - (num_blocks - 1) : 1U;
    wait_for_flip(barrier, add_release(barrier, arrival), where);
  }
  __syncthreads(where);
}

inline void grid_sync(const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::grid_barrier(where);
}

// ---- Asynchronous copies: read and written at the wait, not before; poison until then ----

inline void cp_async_16(void* shared, const void* global) {
  ::cuda_on_cpu::check_aligned(shared, "cp_async_16");
  ::cuda_on_cpu::check_aligned(global, "cp_async_16");
  std::memset(shared, ::cuda_on_cpu::kPoison, 16);
  ::cuda_on_cpu::self().open_copies.push_back({shared, global, 16});
}

inline void cp_async_commit() {
  auto& thread = ::cuda_on_cpu::self();
  thread.copies.push_back(std::exchange(thread.open_copies, {}));
}

template <int kPending>
void cp_async_wait() {
  auto& groups = ::cuda_on_cpu::self().copies;
  while (groups.size() > kPending) {
    for (const auto& copy : groups.front()) std::memcpy(copy.target, copy.source, copy.bytes);
    groups.erase(groups.begin());
  }
}

// ---- Tensor cores ----

inline float to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7f800000U) == 0x7f800000U) return std::bit_cast<float>(bits & ~0x1fffU);
  return std::bit_cast<float>((bits + 0x1000U) & ~0x1fffU);
}

inline void mma_m16n8k8_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2],
                             const CudaWhere& where = CudaWhere::current()) {
  using Fragment = std::array<float, 6>;
  Fragment mine;
  for (unsigned i = 0; i < 4; ++i) mine[i] = ::cuda_on_cpu::tf32_operand(a[i]);
  for (unsigned i = 0; i < 2; ++i) mine[4 + i] = ::cuda_on_cpu::tf32_operand(b[i]);
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto result = ::cuda_on_cpu::exchange(kWholeWarp, mine, where, [&](auto of_lane) {
    std::array<float, 4> sum{d[0], d[1], d[2], d[3]};
    for (unsigned k = 0; k < 8; ++k) {
      const unsigned half = k / 4;
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned column = lane % 4 * 2 + i % 2;
        const Fragment row_of_a = of_lane(lane / 4 * 4 + k % 4);
        const Fragment column_of_b = of_lane(column * 4 + k % 4);
        sum[i] += row_of_a[i / 2 + 2 * half] * column_of_b[4 + half];
      }
    }
    return sum;
  });
  for (unsigned i = 0; i < 4; ++i) d[i] = result[i];
}

inline std::uint32_t pack_bf16(float low, float high) {
  return ::cuda_on_cpu::float_to_bf16(low) | ::cuda_on_cpu::float_to_bf16(high) << 16;
}

inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2],
                              const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::multiply_m16n8k16(d, a, b, ::cuda_on_cpu::bf16_to_float, where);
}

inline std::uint32_t pack_half(float low, float high) {
  return ::cuda_on_cpu::float_to_half(low) | ::cuda_on_cpu::float_to_half(high) << 16;
}

inline float half_low(std::uint32_t word) { return ::cuda_on_cpu::half_to_float(word & 0xffffU); }

inline float half_high(std::uint32_t word) { return ::cuda_on_cpu::half_to_float(word >> 16); }

inline std::uint32_t multiply_halves(std::uint32_t a, std::uint32_t b) {
  return pack_half(half_low(a) * half_low(b), half_high(a) * half_high(b));
}

inline void mma_m16n8k16_half(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2],
                              const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::multiply_m16n8k16(d, a, b, ::cuda_on_cpu::half_to_float, where);
}

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* shared_row,
                        const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::check_aligned(shared_row, "ldmatrix_x4");
  std::array<std::uint32_t, 4> mine;
  std::memcpy(mine.data(), shared_row, sizeof mine);
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto result = ::cuda_on_cpu::exchange(kWholeWarp, mine, where, [&](auto of_lane) {
    std::array<std::uint32_t, 4> words;
    for (unsigned i = 0; i < 4; ++i) words[i] = of_lane(8 * i + lane / 4)[lane % 4];
    return words;
  });
  for (unsigned i = 0; i < 4; ++i) r[i] = result[i];
}

// ---- Launches: run at once, whatever the stream ----

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            CudaStream, std::type_identity_t<Parameters>... arguments) {
  ::cuda_on_cpu::run_grid(false, grid, block, shared_bytes, [=] { kernel(arguments...); });
}

template <class... Parameters>
void launch_cooperative(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                        std::size_t shared_bytes, CudaStream,
                        std::type_identity_t<Parameters>... arguments) {
  ::cuda_on_cpu::run_grid(true, grid, block, shared_bytes, [=] { kernel(arguments...); });
}

inline int multiprocessors() { return ::cuda_on_cpu::process().device.multiprocessors; }

inline std::size_t max_shared_bytes() { return ::cuda_on_cpu::process().device.max_shared_bytes; }

template <class... Parameters>
int max_cooperative_blocks(void (*)(Parameters...), int, std::size_t) {
  return multiprocessors();
}

inline void fill_bytes(void* target, int value, std::size_t bytes, CudaStream) {
  std::memset(target, value, bytes);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// CUDA's own names for cuda_on_cpu.hpp: qualifiers, vector types, built-in variables, barriers,
// warp collectives, atomics and intrinsics, as far as the project's kernels use them. What is
// missing here is a compile error, never a silent difference.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "scheduler.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

#define threadIdx (::cuda_on_cpu::self().index)
#define blockIdx (::cuda_on_cpu::self().block->index)
#define blockDim (::cuda_on_cpu::process().grid->block_dim)
#define gridDim (::cuda_on_cpu::process().grid->grid_dim)
inline constexpr int warpSize = 32;

// ---- Vector types: aligned as on the device, so that UndefinedBehaviorSanitizer sees bad
// addresses -

#define CUDA_ON_CPU_VECTOR(T, name)                                             \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                            \
  struct name##3 { T x, y, z; };                                                \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                    \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }            \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_ON_CPU_VECTOR(float, float)
CUDA_ON_CPU_VECTOR(double, double)
CUDA_ON_CPU_VECTOR(int, int)
CUDA_ON_CPU_VECTOR(unsigned, uint)
CUDA_ON_CPU_VECTOR(unsigned char, uchar)
CUDA_ON_CPU_VECTOR(unsigned short, ushort)
CUDA_ON_CPU_VECTOR(long long, longlong)
CUDA_ON_CPU_VECTOR(unsigned long long, ulonglong)
#undef CUDA_ON_CPU_VECTOR

// ---- Barriers of a block
// ---------------------------------------------------------------------------

using CudaWhere = ::cuda_on_cpu::Where;

inline void __syncthreads(const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::block_barrier(where);
}

// How many threads of the block pass a predicate other than 0.
inline int __syncthreads_count(int predicate, const CudaWhere& where = CudaWhere::current()) {
  auto& block = *::cuda_on_cpu::self().block;
  ::cuda_on_cpu::block_barrier(where);
  block.votes = 0;
  ::cuda_on_cpu::block_barrier(where);
  block.votes += predicate != 0 ? 1 : 0;
  ::cuda_on_cpu::block_barrier(where);
  const int votes = block.votes;
  ::cuda_on_cpu::block_barrier(where);
  return votes;
}

inline int __syncthreads_or(int predicate, const CudaWhere& where = CudaWhere::current()) {
  return __syncthreads_count(predicate, where) > 0 ? 1 : 0;
}

inline int __syncthreads_and(int predicate, const CudaWhere& where = CudaWhere::current()) {
  return __syncthreads_count(predicate == 0, where) == 0 ? 1 : 0;
}

// Memory is sequentially consistent here: fences order nothing that is not ordered already.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { ::cuda_on_cpu::yield_to_driver(::cuda_on_cpu::State::kReady); }
[[noreturn]] inline void __trap() { ::cuda_on_cpu::fail("__trap"); }

// ---- Warp collectives
// ------------------------------------------------------------------------------

namespace cuda_on_cpu {

// Publishes a value, waits for the lanes of `mask`, and returns what `read` makes of their slots.
template <class T, class Read>
auto exchange(std::uint32_t mask, const T& value, const Where& where, Read read) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kSlotBytes);
  Warp& warp = *self().warp;
  std::memcpy(warp.slots[self().lane()], &value, sizeof value);
  warp_barrier(mask, where);
  const auto of_lane = [&](unsigned lane) {
    T published;
    std::memcpy(&published, warp.slots[lane], sizeof published);
    return published;
  };
  const auto result = read(of_lane);
  warp_barrier(mask, where);  // nobody overwrites a slot that is still to be read
  return result;
}

// A shuffle within segments of `width` lanes. A source outside the mask is undefined in CUDA.
template <class T>
T shuffle(std::uint32_t mask, const T& value, unsigned source, const Where& where) {
  if ((mask >> source & 1U) == 0) fail("shuffle at ", where, " reads an inactive lane");
  return exchange(mask, value, where, [&](auto of_lane) { return of_lane(source); });
}

template <class T, class Combine>
T reduce(std::uint32_t mask, T value, const Where& where, Combine combine) {
  return exchange(mask, value, where, [&](auto of_lane) {
    T total = of_lane(static_cast<unsigned>(std::countr_zero(mask)));
    for (std::uint32_t rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
      total = combine(total, of_lane(static_cast<unsigned>(std::countr_zero(rest))));
    }
    return total;
  });
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = 0xffffffffU, const CudaWhere& where = CudaWhere::current()) {
  ::cuda_on_cpu::warp_barrier(mask, where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const CudaWhere& where = CudaWhere::current()) {
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto w = static_cast<unsigned>(width);
  return ::cuda_on_cpu::shuffle(mask, value, lane / w * w + static_cast<unsigned>(source) % w,
                                where);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  const CudaWhere& where = CudaWhere::current()) {
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto w = static_cast<unsigned>(width);
  const unsigned source = lane ^ static_cast<unsigned>(lanes);
  return ::cuda_on_cpu::shuffle(mask, value, source / w > lane / w ? lane : source, where);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const CudaWhere& where = CudaWhere::current()) {
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto w = static_cast<unsigned>(width);
  return ::cuda_on_cpu::shuffle(mask, value, lane % w + delta < w ? lane + delta : lane, where);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 const CudaWhere& where = CudaWhere::current()) {
  const unsigned lane = ::cuda_on_cpu::self().lane();
  const auto w = static_cast<unsigned>(width);
  return ::cuda_on_cpu::shuffle(mask, value, lane % w >= delta ? lane - delta : lane, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const CudaWhere& where = CudaWhere::current()) {
  const unsigned bit = predicate != 0 ? 1U << ::cuda_on_cpu::self().lane() : 0U;
  return ::cuda_on_cpu::reduce(mask, bit, where, [](unsigned a, unsigned b) { return a | b; });
}

inline int __any_sync(unsigned mask, int predicate, const CudaWhere& where = CudaWhere::current()) {
  return __ballot_sync(mask, predicate, where) != 0 ? 1 : 0;
}

inline int __all_sync(unsigned mask, int predicate, const CudaWhere& where = CudaWhere::current()) {
  return __ballot_sync(mask, predicate, where) == mask ? 1 : 0;
}

// 32-bit integers, as in CUDA.
template <class T>
T __reduce_add_sync(unsigned mask, T value, const CudaWhere& where = CudaWhere::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return ::cuda_on_cpu::reduce(mask, value, where, [](T a, T b) {
    return static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
  });
}

template <class T>
T __reduce_min_sync(unsigned mask, T value, const CudaWhere& where = CudaWhere::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return ::cuda_on_cpu::reduce(mask, value, where, [](T a, T b) { return b < a ? b : a; });
}

template <class T>
T __reduce_max_sync(unsigned mask, T value, const CudaWhere& where = CudaWhere::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return ::cuda_on_cpu::reduce(mask, value, where, [](T a, T b) { return a < b ? b : a; });
}

inline unsigned __reduce_or_sync(unsigned mask, unsigned value,
                                 const CudaWhere& where = CudaWhere::current()) {
  return ::cuda_on_cpu::reduce(mask, value, where, [](unsigned a, unsigned b) { return a | b; });
}

inline unsigned __reduce_and_sync(unsigned mask, unsigned value,
                                  const CudaWhere& where = CudaWhere::current()) {
  return ::cuda_on_cpu::reduce(mask, value, where, [](unsigned a, unsigned b) { return a & b; });
}

// ---- Atomics: no two fibers run at once, so a plain update is one; all return the old value
// -------

namespace cuda_on_cpu {

template <class T, class Update>
T atomic(T* address, Update update) {
  may_interleave();
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T old) { return static_cast<T>(old + value); });
}

template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T old) { return static_cast<T>(old - value); });
}

template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has no atomicMin of floats");
  return ::cuda_on_cpu::atomic(address, [&](T old) { return value < old ? value : old; });
}

template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has no atomicMax of floats");
  return ::cuda_on_cpu::atomic(address, [&](T old) { return old < value ? value : old; });
}

template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T old) { return old | value; });
}

template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T old) { return old & value; });
}

template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T) { return value; });
}

template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::atomic(address, [&](T old) { return old == expected ? value : old; });
}

// ---- Memory and arithmetic intrinsics
// ---------------------------------------------------------------

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

// A clock that ticks whenever a thread waits.
inline long long clock64() { return ::cuda_on_cpu::process().switches; }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1U) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0F / a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
// The fast versions are as accurate here as the others: tests compare within their tolerance.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __saturatef(float x) { return x > 1.0F ? 1.0F : x > 0.0F ? x : 0.0F; }
inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float normcdff(float x) { return 0.5F * std::erfc(-x * 0.70710678F); }
inline double normcdf(double x) { return 0.5 * std::erfc(-x * 0.70710678118654752); }

// CUDA has min and max of two equal arithmetic types in the global namespace.
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

// SPDX-License-Identifier: Apache-2.0
// Everything of CUDA that is not plain C++ or that a kernel could get wrong, in one place: shared
// memory, barriers across blocks, tensor-core and asynchronous-copy instructions. All PTX of the
// project stands here.
//
// Kernels use these names and CUDA's own built-ins (threadIdx, __syncthreads, __shfl_xor_sync,
// atomicAdd, ...), nothing else, so that the same file also compiles as C++ over
// tests/cuda_on_cpu/cuda_on_cpu.hpp, where a kernel's threads are fibers and every name below has a
// second, checking implementation. Rules that follow:
//   - A2V_SHARED(float[32], sums) instead of __shared__, A2V_DYN_SMEM(float, buffer) instead of
//     extern __shared__, launch() of launch.cuh instead of <<<>>>.
//   - No inline assembly in kernels.
//   - tf32 operands pass through to_tf32() or split_tf32() first.
#pragma once

#include <cstdint>

#if !defined(__CUDACC__)
#if !defined(A2V_CUDA_ON_CPU)
#error "compile with nvcc, or with g++ -x c++ -include tests/cuda_on_cpu/cuda_on_cpu.hpp"
#endif
#else

#include <cooperative_groups.h>
#include <cuda_runtime.h>

namespace a2v {

template <class T>
struct SharedType {
  using Type = T;
};

// A variable of type T (arrays too: float[32]) shared by the block. Uninitialised.
#define A2V_SHARED(T, name) __shared__ typename ::a2v::SharedType<T>::Type name

// The dynamic shared memory of the launch as T*, 16-byte aligned. One use a kernel; lay out several
// arrays by offsets.
#define A2V_DYN_SMEM(T, name)                                   \
  extern __shared__ __align__(16) unsigned char a2v_dyn_smem[]; \
  T* name = reinterpret_cast<T*>(a2v_dyn_smem)

inline constexpr unsigned kWholeWarp = 0xffffffffU;
inline constexpr int kWarpSize = 32;

// threadIdx.x, read anew at each call: what a kernel computes from it is computed again where it is
// used, instead of occupying registers through a loop that needs them all.
__device__ inline int thread_index() {
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

// ---- Memory shared with other blocks ------------------------------------------------------------

// Reads global memory that other blocks write during this launch, from the second-level cache:
// never a stale line of the first. Any type that __ldcg takes.
template <class T>
__device__ inline T load_cg(const T* address) {
  return __ldcg(address);
}

template <class T>
__device__ inline void store_cg(T* address, T value) {
  __stcg(address, value);
}

// Everything that this thread has seen written happens before the matching load_acquire.
__device__ inline void store_release(unsigned* address, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(address)),
               "r"(value)
               : "memory");
}

__device__ inline unsigned load_acquire(const unsigned* address) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(value)
               : "l"(__cvta_generic_to_global(address))
               : "memory");
  return value;
}

// Returns the old value.
__device__ inline unsigned add_release(unsigned* address, unsigned value) {
  unsigned old;
  asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(__cvta_generic_to_global(address)), "r"(value)
               : "memory");
  return old;
}

// Waits until *address no longer has the top bit of `before`: the loop of group_sync, for those who
// want work between arriving and waiting.
__device__ inline void wait_for_flip(const unsigned* address, unsigned before) {
  while (((before ^ load_acquire(address)) & 0x80000000U) == 0) {
  }
}

// Barrier of the `num_blocks` blocks that share `barrier` (one word of global memory, zero before
// its first use; it needs no reset between uses or launches). `rank` is the block's number in its
// group, 0 .. num_blocks - 1. All threads of all blocks call it, in a cooperative launch, since
// every block must be resident. Writes before it are visible to every block after it, through plain
// loads too (but never through __ldg or const __restrict__, which may be cached as read-only).
//
// One arrival a block. Rank 0 adds 2^31 - (num_blocks - 1), the others 1: the last arrival flips
// the top bit and leaves the other bits zero. __syncthreads orders the block's writes before thread
// 0's release (causality order of the PTX memory model is transitive), and the acquire before the
// block's later reads.
__device__ inline void group_sync(unsigned* barrier, unsigned rank, unsigned num_blocks) {
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    const unsigned arrival = rank == 0 ? 0x80000000U - (num_blocks - 1) : 1U;
    wait_for_flip(barrier, add_release(barrier, arrival));
  }
  __syncthreads();
}

// Barrier of the whole grid; cooperative launches only.
__device__ inline void grid_sync() { cooperative_groups::this_grid().sync(); }

// ---- Asynchronous copies to shared memory -------------------------------------------------------

// Starts copying 16 bytes from global to shared memory, both 16-byte aligned. The data may be read
// by this thread after the cp_async_wait that covers it, by others after a barrier on top.
__device__ inline void cp_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}

// Closes a group of the copies that this thread started since the last commit.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the newest kPending groups are still under way.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- Tensor cores (one warp; l = lane, g = l / 4, t = l % 4)
// --------------------------------------

// The nearest tf32 (8-bit exponent, 10-bit mantissa; ties away from zero), as a float.
__device__ inline float to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// D[16, 8] += A[16, 8] B[8, 8] in float32 with tf32 operands.
//   a[0..3] = A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4]
//   b[0..1] = B[t][g], B[t + 4][g]
//   d[0..3] = D[g][2t], D[g][2t + 1], D[g + 8][2t], D[g + 8][2t + 1]
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// Two bf16 (round to nearest even) in one word, `low` in the lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// D[16, 8] += A[16, 16] B[16, 8] in float32 with bf16 operands, two neighbours of k a word.
//   a[0..3] = A[g][2t, 2t + 1], A[g + 8][2t, ..], A[g][2t + 8, ..], A[g + 8][2t + 8, ..]
//   b[0..1] = B[2t, 2t + 1][g], B[2t + 8, 2t + 9][g]
//   d as in mma_m16n8k8_tf32
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two fp16 (round to nearest even) in one word, `low` in the lower half.
__device__ inline std::uint32_t pack_half(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// The two fp16 of a word as float32.
__device__ inline float half_low(std::uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low; }"
      : "=f"(value)
      : "r"(word));
  return value;
}

__device__ inline float half_high(std::uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high; }"
      : "=f"(value)
      : "r"(word));
  return value;
}

// The products of two pairs of fp16.
__device__ inline std::uint32_t multiply_halves(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

// As mma_m16n8k16_bf16, with fp16 operands.
__device__ inline void mma_m16n8k16_half(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads four 8x8 matrices of 16-bit elements (equally: 8x4 of 32-bit): lane l names row l % 8 of
// matrix l / 8 (16 bytes of shared memory, 16-byte aligned) and gets in r[i] the word l % 4 of row
// l / 4 of matrix i.
__device__ inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared_row)))
               : "memory");
}

}  // namespace a2v

#endif  // __CUDACC__

// ---- The same source for both compilers
// -----------------------------------------------------------

namespace a2v {

// A float32 as the sum of two tf32 (21 bits of mantissa together).
struct SplitTf32 {
  float high;
  float low;
};

// The low part is cut off, not rounded: half the conversions, and its error is below 2^-22 of x.
__device__ inline SplitTf32 split_tf32(float x) {
  const float high = to_tf32(x);
  return {high, __uint_as_float(__float_as_uint(x - high) & 0xffffe000U)};
}

// D += A B with operands split in two: three products, the small ones first. About float32 accuracy
// ("3xTF32"); the dropped low x low term is below 2^-22 of the product.
__device__ inline void mma_m16n8k8_3xtf32(float (&d)[4], const float (&a_high)[4],
                                          const float (&a_low)[4], const float (&b_high)[2],
                                          const float (&b_low)[2]) {
  mma_m16n8k8_tf32(d, a_low, b_high);
  mma_m16n8k8_tf32(d, a_high, b_low);
  mma_m16n8k8_tf32(d, a_high, b_high);
}

// Reductions over a full warp; every lane gets the result. A butterfly: the order of the additions
// is fixed, so the same inputs give the same bits.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, offset);
  }
  return value;
}

template <class T>
__device__ inline T warp_max(T value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

template <class T>
__device__ inline T warp_min(T value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, value, offset);
    value = other < value ? other : value;
  }
  return value;
}

}  // namespace a2v

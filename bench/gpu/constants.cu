// SPDX-License-Identifier: Apache-2.0
// What a GPU charges for the things that kernels of a few microseconds are made of: launches, graph
// nodes, barriers, latencies, and what its tensor cores give through mma.sync. One JSON line a
// number on stdout; bench/gpu/constants.py builds and runs it.
//
// A loop of many repetitions inside one kernel or one graph, divided by their number; median and
// range of kRepeats such measurements.

#include <cooperative_groups.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "common/device.cuh"
#include "common/launch.cuh"

namespace {

constexpr int kRepeats = 9;

#define CHECK(call)                                                                       \
  do {                                                                                    \
    const cudaError_t error = (call);                                                     \
    if (error != cudaSuccess) {                                                           \
      std::fprintf(stderr, "constants.cu:%d: %s\n", __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (false)

void print(const std::string& name, const char* unit, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf(
      "{\"name\": \"%s\", \"unit\": \"%s\", \"value\": %.6g, \"min\": %.6g, \"max\": %.6g}\n",
      name.c_str(), unit, values[values.size() / 2], values.front(), values.back());
  std::fflush(stdout);
}

// Seconds between two events around `work`, kRepeats times, after one run that warms up.
std::vector<double> seconds(cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<double> all;
  for (int repeat = -1; repeat < kRepeats; ++repeat) {
    CHECK(cudaEventRecord(begin, stream));
    work();
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (repeat >= 0) all.push_back(milliseconds * 1e-3);
  }
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  return all;
}

std::vector<double> scaled(std::vector<double> values, double factor) {
  for (double& value : values) value *= factor;
  return values;
}

// ---- Launches and graphs ------------------------------------------------------------------------

__global__ void nothing_kernel(float*) {}

// As little as a dependent kernel can do: every thread reads what the one before wrote.
__global__ void chain_kernel(float* x) { x[blockIdx.x * blockDim.x + threadIdx.x] += 1.0F; }

void graph_gaps(cudaStream_t stream, float* memory, int blocks) {
  constexpr int kNodes = 512;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kNodes; ++i) {
    a2v::launch(chain_kernel, static_cast<unsigned>(blocks), 256, 0, stream, memory);
  }
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  const auto work = [&] { CHECK(cudaGraphLaunch(executable, stream)); };
  print("graph node, dependent kernel of " + std::to_string(blocks) + " blocks", "us",
        scaled(seconds(stream, work), 1e6 / kNodes));
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
}

// The same chain where each kernel may start before the one before has ended (programmatic launch):
// its blocks are in place when the results arrive.
__global__ void waiting_chain_kernel(float* x) {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  x[blockIdx.x * blockDim.x + threadIdx.x] += 1.0F;
}

void programmatic_gaps(cudaStream_t stream, float* memory, int blocks) {
  constexpr int kNodes = 512;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(256);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kNodes; ++i) CHECK(cudaLaunchKernelEx(&config, waiting_chain_kernel, memory));
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  const auto work = [&] { CHECK(cudaGraphLaunch(executable, stream)); };
  print("graph node, programmatic dependent launch, " + std::to_string(blocks) + " blocks", "us",
        scaled(seconds(stream, work), 1e6 / kNodes));
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
}

void launches(cudaStream_t stream, float* memory) {
  constexpr int kLaunches = 2000;
  const auto back_to_back = [&] {
    for (int i = 0; i < kLaunches; ++i) a2v::launch(nothing_kernel, 1, 32, 0, stream, memory);
  };
  print("launch, back to back", "us", scaled(seconds(stream, back_to_back), 1e6 / kLaunches));
  const auto waiting = [&] {
    for (int i = 0; i < kLaunches; ++i) {
      a2v::launch(nothing_kernel, 1, 32, 0, stream, memory);
      CHECK(cudaStreamSynchronize(stream));
    }
  };
  print("launch and wait for it", "us", scaled(seconds(stream, waiting), 1e6 / kLaunches));
}

// ---- Barriers
// -------------------------------------------------------------------------------------

enum class Barrier { kBlock, kGroup, kGrid };

template <Barrier kBarrier>
__global__ void barrier_kernel(unsigned* barrier, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    if constexpr (kBarrier == Barrier::kBlock) __syncthreads();
    if constexpr (kBarrier == Barrier::kGroup) a2v::group_sync(barrier, blockIdx.x, gridDim.x);
    if constexpr (kBarrier == Barrier::kGrid) a2v::grid_sync();
  }
}

__global__ void cluster_barrier_kernel(int rounds) {
#if __CUDA_ARCH__ >= 900
  for (int i = 0; i < rounds; ++i) cooperative_groups::this_cluster().sync();
#endif
}

void barriers(cudaStream_t stream) {
  constexpr int kRounds = 2000;
  unsigned* barrier = nullptr;
  CHECK(cudaMalloc(&barrier, sizeof(unsigned)));
  CHECK(cudaMemset(barrier, 0, sizeof(unsigned)));
  for (const unsigned threads : {128U, 256U, 512U, 1024U}) {
    const auto work = [&] {
      a2v::launch(barrier_kernel<Barrier::kBlock>, 1, threads, 0, stream, barrier, 10 * kRounds);
    };
    print("__syncthreads, " + std::to_string(threads) + " threads", "us",
          scaled(seconds(stream, work), 1e6 / (10 * kRounds)));
  }
  const auto all = static_cast<unsigned>(a2v::multiprocessors());
  for (const unsigned blocks : {2U, 8U, 16U, 32U, 64U, all}) {
    const auto group = [&] {
      a2v::launch_cooperative(barrier_kernel<Barrier::kGroup>, blocks, 256, 0, stream, barrier,
                              kRounds);
    };
    print("group_sync, " + std::to_string(blocks) + " blocks", "us",
          scaled(seconds(stream, group), 1e6 / kRounds));
    const auto grid = [&] {
      a2v::launch_cooperative(barrier_kernel<Barrier::kGrid>, blocks, 256, 0, stream, barrier,
                              kRounds);
    };
    print("cooperative groups grid.sync, " + std::to_string(blocks) + " blocks", "us",
          scaled(seconds(stream, grid), 1e6 / kRounds));
  }
  CHECK(cudaFree(barrier));
}

void cluster_barriers(cudaStream_t stream) {
  constexpr int kRounds = 4000;
  CHECK(cudaFuncSetAttribute(cluster_barrier_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed,
                             1));
  for (const unsigned size : {2U, 4U, 8U, 16U}) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {size, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(size);
    config.blockDim = dim3(256);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    const auto work = [&] { CHECK(cudaLaunchKernelEx(&config, cluster_barrier_kernel, kRounds)); };
    print("cluster barrier, " + std::to_string(size) + " blocks", "us",
          scaled(seconds(stream, work), 1e6 / kRounds));
  }
}

// ---- Latencies and rates
// ----------------------------------------------------------------------------

// One thread follows a chain of addresses.
__global__ void chase_kernel(const unsigned* next, int steps, unsigned* out) {
  unsigned at = 0;
  for (int i = 0; i < steps; ++i) at = a2v::load_cg(next + at);
  *out = at;
}

void latencies(cudaStream_t stream) {
  constexpr int kSteps = 20000;
  constexpr std::size_t kStride = 64;  // unsigneds: 256 bytes, no two steps in one line
  for (const auto& [name, bytes] : {std::pair{"second-level cache", std::size_t{8} << 20},
                                    std::pair{"memory", std::size_t{1} << 30}}) {
    const std::size_t cells = bytes / sizeof(unsigned);
    std::vector<unsigned> next(cells, 0);
    const std::size_t lines = cells / kStride;
    // A full cycle through the lines in a scattered order: an odd step in a power of two.
    for (std::size_t i = 0; i < lines; ++i) {
      next[i * kStride] = static_cast<unsigned>((i + (lines / 3 | 1)) % lines * kStride);
    }
    unsigned* device = nullptr;
    unsigned* out = nullptr;
    CHECK(cudaMalloc(&device, bytes));
    CHECK(cudaMalloc(&out, sizeof(unsigned)));
    CHECK(cudaMemcpy(device, next.data(), bytes, cudaMemcpyHostToDevice));
    const auto work = [&] {
      a2v::launch(chase_kernel, 1, 1, 0, stream, static_cast<const unsigned*>(device), kSteps, out);
    };
    print(std::string("load latency, ") + name, "ns", scaled(seconds(stream, work), 1e9 / kSteps));
    CHECK(cudaFree(device));
    CHECK(cudaFree(out));
  }
}

template <bool kBf16>
__global__ void product_kernel(float* out, int rounds) {
  float d[8][4] = {};
  const float x = a2v::to_tf32(static_cast<float>(threadIdx.x) * 1e-3F);
  const float a[4] = {x, x, x, x};
  const float b[2] = {x, x};
  const std::uint32_t packed = a2v::pack_bf16(x, x);
  const std::uint32_t a_words[4] = {packed, packed, packed, packed};
  const std::uint32_t b_words[2] = {packed, packed};
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if constexpr (kBf16) {
        a2v::mma_m16n8k16_bf16(d[j], a_words, b_words);
      } else {
        a2v::mma_m16n8k8_tf32(d[j], a, b);
      }
    }
  }
  float sum = 0;
  for (int j = 0; j < 8; ++j) sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

template <bool kBf16>
void products(cudaStream_t stream, float* memory) {
  constexpr int kRounds = 2000;
  constexpr unsigned kThreads = 512;
  const auto blocks = static_cast<unsigned>(2 * a2v::multiprocessors());
  const double operations = 2.0 * 16 * 8 * (kBf16 ? 16 : 8) * 8 * kRounds * blocks * kThreads / 32;
  const auto work = [&] {
    a2v::launch(product_kernel<kBf16>, blocks, kThreads, 0, stream, memory, kRounds);
  };
  std::vector<double> rates;
  for (const double time : seconds(stream, work)) rates.push_back(operations / time * 1e-12);
  print(kBf16 ? "mma.sync m16n8k16 bf16, all processors" : "mma.sync m16n8k8 tf32, all processors",
        "TFLOP/s", rates);
}

void copies(cudaStream_t stream) {
  for (const auto& [name, bytes] : {std::pair{"16 MB, cached", std::size_t{16} << 20},
                                    std::pair{"1 GB", std::size_t{1} << 30}}) {
    void* from = nullptr;
    void* to = nullptr;
    CHECK(cudaMalloc(&from, bytes));
    CHECK(cudaMalloc(&to, bytes));
    CHECK(cudaMemset(from, 1, bytes));
    constexpr int kCopies = 10;
    const auto work = [&] {
      for (int i = 0; i < kCopies; ++i) {
        CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
      }
    };
    std::vector<double> rates;
    for (const double time : seconds(stream, work)) {
      rates.push_back(2.0 * static_cast<double>(bytes) * kCopies / time * 1e-9);
    }
    print(std::string("copy on the device, read and written, ") + name, "GB/s", rates);
    CHECK(cudaFree(from));
    CHECK(cudaFree(to));
  }
}

}  // namespace

int main() {
  int device = 0;
  cudaDeviceProp properties;
  CHECK(cudaGetDevice(&device));
  CHECK(cudaGetDeviceProperties(&properties, device));
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  float* memory = nullptr;
  CHECK(cudaMalloc(&memory, std::size_t{1} << 24));
  CHECK(cudaMemset(memory, 0, std::size_t{1} << 24));
  launches(stream, memory);
  for (const int blocks : {1, 32, a2v::multiprocessors()}) graph_gaps(stream, memory, blocks);
  barriers(stream);
  if (properties.major >= 9) {
    for (const int blocks : {32, a2v::multiprocessors()}) programmatic_gaps(stream, memory, blocks);
    cluster_barriers(stream);
  }
  latencies(stream);
  copies(stream);
  products<false>(stream, memory);
  products<true>(stream, memory);
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaFree(memory));
}

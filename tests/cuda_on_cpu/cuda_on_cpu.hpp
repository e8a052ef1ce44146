// SPDX-License-Identifier: Apache-2.0
// Runs the project's CUDA kernels on the CPU, for tests on machines without a GPU:
//
//   g++ -std=c++20 -x c++ -include tests/cuda_on_cpu/cuda_on_cpu.hpp -Icsrc kernel.cu test.cpp
//
// Every CUDA thread is a fiber; barriers, warp collectives, shared memory, atomics, cooperative
// grids, cp.async and the tensor-core instructions of csrc/common/device.cuh have their semantics,
// on one CPU thread, in an order that the test chooses. What it finds, beyond wrong results:
//   - a missing barrier: shared memory starts as 0xFF (NaN), and the orders disagree
//   (for_each_schedule)
//   - a barrier that not all threads reach, or two different ones met: Error, naming the lines
//   - a missing or too lax cp_async_wait: the data are not there
//   - out of bounds and misaligned access, of shared memory too: under ASan/UBSan, to the byte
//   - stray writes to global memory: Guarded arrays check the cells around them
// What it does not model: weak memory order, registers, bank conflicts, the order of float atomics.
//
//   for_each_schedule([&] {
//     Guarded<float> out(n);
//     launch_x(params_with(out.data()), nullptr);
//     out.check();
//     ...
//   });
#pragma once

#define A2V_CUDA_ON_CPU 1

#include <cstddef>
#include <vector>

#include "device_names.hpp"

namespace cuda_on_cpu {

// Runs a test under every schedule; the first error names the one it happened under.
template <class Test>
void for_each_schedule(Test test, unsigned shuffled = 4) {
  static constexpr const char* kOrders[] = {"forward", "reverse", "shuffled"};
  for (const Schedule& schedule : schedules(shuffled)) {
    process().schedule = schedule;
    try {
      test();
    } catch (const std::exception& error) {
      process().schedule = {};
      throw Error(std::string(error.what()) + " [schedule " +
                  kOrders[static_cast<int>(schedule.order)] + (schedule.greedy ? ", greedy" : "") +
                  ", seed " + std::to_string(schedule.seed) + "]");
    }
  }
  process().schedule = {};
}

// An array as device memory: full of poison, with guard cells on both sides.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t size) : size_(size), cells_(size + 2 * kGuard) {
    std::memset(static_cast<void*>(cells_.data()), kPoison, cells_.size() * sizeof(T));
  }

  explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
    std::copy(values.begin(), values.end(), data());
  }

  T* data() { return cells_.data() + kGuard; }
  const T* data() const { return cells_.data() + kGuard; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }

  // Throws if anything was written outside the array.
  void check() const {
    for (std::size_t i = 0; i < kGuard; ++i) {
      if (!untouched(cells_[i]) || !untouched(cells_[size_ + kGuard + i])) {
        throw Error("a kernel wrote outside an array of " + std::to_string(size_) + " elements");
      }
    }
  }

 private:
  static constexpr std::size_t kGuard = 64;

  static bool untouched(const T& cell) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(&cell);
    return std::all_of(bytes, bytes + sizeof(T), [](unsigned char b) { return b == kPoison; });
  }

  std::size_t size_;
  std::vector<T> cells_;
};

}  // namespace cuda_on_cpu

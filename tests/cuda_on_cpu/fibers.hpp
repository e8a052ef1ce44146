// SPDX-License-Identifier: Apache-2.0
// Stackful coroutines for cuda_on_cpu.hpp: one per CUDA thread, switched in a few nanoseconds and
// known to AddressSanitizer, so that kernels run under it.
//
// Written out here because swapcontext() makes a system call a switch and a kernel of 256 threads
// switches a million times a second.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr std::size_t kStackBytes = 256 << 10;  // redzones around every local variable
#else
inline constexpr std::size_t kStackBytes = 64 << 10;
#endif

// Stacks are kept for the next launch: a test runs thousands. Allocated many at a time, because a
// process may not have more than 65,530 mappings.
class StackPool {
 public:
  char* take() {
    if (free_.empty()) grow();
    char* stack = free_.back();
    free_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, kStackBytes);  // of an abandoned fiber
#endif
    std::memcpy(stack, &kCanary, sizeof kCanary);
    return stack;
  }

  void give(char* stack) { free_.push_back(stack); }

  // Whether the fiber of this stack has stayed inside it.
  static bool intact(const char* stack) {
    return std::memcmp(stack, &kCanary, sizeof kCanary) == 0;
  }

 private:
  static constexpr std::size_t kAtOnce = 64;
  static constexpr std::uint64_t kCanary = 0x5ca1ab1e0ddba11ULL;

  void grow() {
    void* slab = mmap(nullptr, kAtOnce * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab == MAP_FAILED) throw std::bad_alloc();
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      free_.push_back(static_cast<char*>(slab) + i * kStackBytes);
    }
  }

  std::vector<char*> free_;
};

#if defined(__x86_64__)

using Context = void*;  // the stack pointer; everything else lies on the stack

// Saves the callee-saved registers and the floating-point control words of the caller, and
// continues where `load` was saved.
extern "C" __attribute__((naked, noinline)) inline void cuda_on_cpu_switch(
    [[maybe_unused]] Context* save, [[maybe_unused]] Context load) {
  asm volatile(
      "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "subq $8, %rsp; stmxcsr (%rsp); fnstcw 4(%rsp)\n"
      "movq %rsp, (%rdi); movq %rsi, %rsp\n"
      "ldmxcsr (%rsp); fldcw 4(%rsp); addq $8, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
      "ret\n");
}

inline void switch_context(Context& save, Context& load) { cuda_on_cpu_switch(&save, load); }

inline void make_context_at(Context& context, char* stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + kStackBytes - 64);
  *--top = nullptr;  // entry never returns
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  --top;
  std::uint32_t mxcsr;
  std::uint16_t x87;
  asm volatile("stmxcsr %0" : "=m"(mxcsr));
  asm volatile("fnstcw %0" : "=m"(x87));
  std::memcpy(top, &mxcsr, sizeof mxcsr);
  std::memcpy(reinterpret_cast<char*>(top) + 4, &x87, sizeof x87);
  context = top;
}

#else

using Context = ucontext_t;

inline void switch_context(Context& save, Context& load) { swapcontext(&save, &load); }

inline void make_context_at(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

// One coroutine, resumed by and yielding to the thread that drives it.
class Fiber {
 public:
  void start(StackPool& pool, void (*entry)()) {
    stack_ = pool.take();
    make_context_at(context_, stack_, entry);
  }

  void release(StackPool& pool) { pool.give(stack_); }

  bool stack_intact() const { return StackPool::intact(stack_); }

  // From the driver: runs the fiber until it yields.
  void resume(Context& driver) {
#if defined(__SANITIZE_ADDRESS__)
    void* driver_fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&driver_fake_stack, stack_, kStackBytes);
    switch_context(driver, context_);
    __sanitizer_finish_switch_fiber(driver_fake_stack, nullptr, nullptr);
#else
    switch_context(driver, context_);
#endif
  }

  // First statement of a fiber.
  void entered() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &driver_stack_, &driver_stack_bytes_);
#endif
  }

  // From the fiber: back to the driver. `last` where it will not be resumed.
  void yield(Context& driver, bool last) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack_, driver_stack_,
                                   driver_stack_bytes_);
    switch_context(context_, driver);
    __sanitizer_finish_switch_fiber(fake_stack_, &driver_stack_, &driver_stack_bytes_);
#else
    static_cast<void>(last);
    switch_context(context_, driver);
#endif
  }

 private:
  Context context_{};
  char* stack_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_ = nullptr;
  const void* driver_stack_ = nullptr;
  std::size_t driver_stack_bytes_ = 0;
#endif
};

}  // namespace cuda_on_cpu

// SPDX-License-Identifier: Apache-2.0
// A team of threads that works on one call and meets at barriers.
//
// Kernels whose phases take microseconds cannot fork and join for each: a team is started once a
// call and its members wait for each other by spinning, a bounded time, then by yielding, because
// machines may run more threads than cores. Torch-free, and usable from files of any instruction
// set: nothing here is inline.
#pragma once

#include <atomic>

namespace a2v {

class Barrier {
 public:
  explicit Barrier(int members);

  // Returns once all members have called it; what they wrote before is visible after.
  void wait();

 private:
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
};

// Runs member(context, 0 .. members - 1) side by side, 0 on the calling thread, and returns when
// all have ended. Members must not throw. If a thread cannot be started, none of the members runs
// and std::system_error is thrown.
void run_team(int members, void (*member)(void* context, int index), void* context);

}  // namespace a2v

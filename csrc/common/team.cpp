// SPDX-License-Identifier: Apache-2.0
// See team.h.

#include "common/team.h"

#include <thread>
#include <vector>

namespace a2v {
namespace {

constexpr int kSpins = 4000;  // some ten microseconds, a good part of a phase

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Barrier::Barrier(int members) : members_(members) {}

void Barrier::wait() {
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin) {
    if (spin < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void run_team(int members, void (*member)(void* context, int index), void* context) {
  enum : int { kWait, kGo, kCancel };
  std::atomic<int> signal{kWait};
  std::vector<std::jthread> helpers;
  helpers.reserve(static_cast<std::size_t>(members));
  try {
    for (int index = 1; index < members; ++index) {
      helpers.emplace_back([&signal, member, context, index] {
        signal.wait(kWait);
        if (signal.load() == kGo) {
          member(context, index);
        }
      });
    }
  } catch (...) {
    signal = kCancel;
    signal.notify_all();
    throw;
  }
  signal = kGo;
  signal.notify_all();
  member(context, 0);
}

}  // namespace a2v

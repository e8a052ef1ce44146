// SPDX-License-Identifier: Apache-2.0
//
// Fork-join over an index range. Plain threads: batches here take milliseconds to seconds, so a
// pool would buy nothing and would have to survive fork() in data loaders.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace a2v {

inline int num_threads(int requested) {
  if (requested > 0) return requested;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Calls body(begin, end) for consecutive chunks of [0, count); chunks are handed out as threads
// become free. The first exception is rethrown here after all threads have ended.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t chunk, int threads, const Body& body) {
  const std::int64_t chunks = (count + chunk - 1) / chunk;
  const int team = static_cast<int>(std::min<std::int64_t>(num_threads(threads), chunks));
  if (team <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&] {
    try {
      for (std::int64_t c = next++; c < chunks; c = next++)
        body(c * chunk, std::min(count, (c + 1) * chunk));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
      next = chunks;
    }
  };
  std::vector<std::jthread> helpers;
  for (int t = 1; t < team; ++t) helpers.emplace_back(work);
  work();
  helpers.clear();  // joins
  if (error) std::rethrow_exception(error);
}

}  // namespace a2v

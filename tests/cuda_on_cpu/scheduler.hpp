// SPDX-License-Identifier: Apache-2.0
// The grid of cuda_on_cpu.hpp: threads, warps, blocks, their barriers and shared memory, and the
// driver that runs them in an order of the test's choosing.
//
// A thread runs until it waits for others, so a missing barrier shows as poison (0xFF bytes: NaN,
// -1) or as a value of the wrong iteration under one order or another. Errors of the kernel are
// exceptions of type Error, thrown from launch().
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fibers.hpp"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace cuda_on_cpu {

using Where = std::source_location;

// What a kernel did wrong.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order in which waiting threads go on. `greedy`: a warp, then a block, runs as far ahead of
// the others as barriers let it; otherwise all advance from barrier to barrier together.
struct Schedule {
  enum class Order { kForward, kReverse, kShuffled };
  Order order = Order::kForward;
  bool greedy = false;
  unsigned seed = 0;
};

// The schedules of a test, from the tidy to the adversarial.
inline std::vector<Schedule> schedules(unsigned shuffled = 4) {
  using Order = Schedule::Order;
  std::vector<Schedule> all{{Order::kForward, false, 0},
                            {Order::kForward, true, 0},
                            {Order::kReverse, false, 0},
                            {Order::kReverse, true, 0}};
  for (unsigned seed = 1; seed <= shuffled; ++seed) {
    all.push_back({Order::kShuffled, seed % 2 == 0, seed});
  }
  return all;
}

// The device that kernels see; limits of sm_90.
struct Device {
  int multiprocessors = 4;
  int max_block_threads = 1024;
  std::size_t max_shared_bytes = 227 << 10;
  std::size_t max_static_shared_bytes = 48 << 10;
};

enum class State : std::uint8_t {
  kReady,
  kBlockBarrier,
  kWarpBarrier,
  kGridBarrier,
  kCondition,
  kDone
};

inline constexpr unsigned kLanes = 32;
inline constexpr std::size_t kSlotBytes = 64;  // what a lane publishes in one warp collective
inline constexpr std::uint8_t kPoison = 0xff;

struct Block;
struct Warp;

struct AsyncCopy {
  void* target;
  const void* source;
  std::size_t bytes;
};

struct Thread {
  Fiber fiber;
  State state = State::kReady;
  unsigned linear = 0;  // within the block
  dim3 index;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Where where;  // of the barrier it waits at
  const std::function<bool()>* condition = nullptr;
  std::vector<std::vector<AsyncCopy>> copies;  // committed groups, oldest first
  std::vector<AsyncCopy> open_copies;          // not committed yet

  unsigned lane() const { return linear % kLanes; }
};

// Lanes that have arrived at a collective of `mask`.
struct WarpBarrier {
  std::uint32_t mask;
  std::uint32_t arrived;
  Where where;
};

struct Warp {
  Thread* threads = nullptr;
  unsigned size = 0;
  std::vector<WarpBarrier> pending;  // disjoint masks
  alignas(16) unsigned char slots[kLanes][kSlotBytes];
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Allocated to the byte, so that AddressSanitizer sees every overrun, and poisoned.
using SharedArray = std::unique_ptr<unsigned char, Free>;

inline SharedArray shared_array(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)),
                     std::max<std::size_t>(bytes, 1)) != 0) {
    throw std::bad_alloc();
  }
  std::memset(memory, kPoison, bytes);
  return SharedArray(static_cast<unsigned char*>(memory));
}

struct Block {
  dim3 index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  SharedArray dynamic_shared;
  std::map<const void*, SharedArray> static_shared;  // by variable
  std::size_t static_bytes = 0;
  std::size_t arrived = 0;
  std::size_t done = 0;
  Where barrier;  // where the first arrival stands
  int votes = 0;  // of __syncthreads_count and its kin
};

// One launch.
struct Grid {
  dim3 grid_dim;
  dim3 block_dim;
  std::size_t dynamic_bytes = 0;
  bool cooperative = false;
  Schedule schedule;
  std::function<void()> body;
  std::vector<std::unique_ptr<Block>> blocks;  // those under way
};

// What the current thread of execution is inside of; tests and kernels share one.
struct Process {
  Device device;
  Schedule schedule;
  StackPool stacks;
  Context driver{};
  Grid* grid = nullptr;
  Thread* thread = nullptr;
  std::mt19937 random;
  std::string error;  // set by a fiber that must not go on
  long switches = 0;
};

inline Process& process() {
  static Process instance;
  return instance;
}

inline Thread& self() { return *process().thread; }

// Formats parts of a message; places by file name and line.
template <class T>
void write(std::ostream& out, const T& part) {
  out << part;
}

inline void write(std::ostream& out, const dim3& d) {
  out << "(" << d.x << "," << d.y << "," << d.z << ")";
}

inline void write(std::ostream& out, const Where& where) {
  const std::string file = where.file_name();
  out << file.substr(file.rfind('/') + 1) << ":" << where.line();
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (write(out, parts), ...);
  return out.str();
}

inline void yield_to_driver(State state) {
  Process& p = process();
  Thread& thread = *p.thread;
  thread.state = state;
  ++p.switches;
  thread.fiber.yield(p.driver, state == State::kDone);
}

// From a fiber: abandons the launch; the driver throws, on its own stack. Takes parts and not a
// string, because no destructor of the calling fiber will run.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  const Thread& thread = self();
  process().error = text(parts..., ", thread ", thread.index, " of block ", thread.block->index);
  yield_to_driver(State::kDone);
  std::abort();
}

// ---- Waiting, from a fiber
// ------------------------------------------------------------------------

inline void block_barrier(const Where& where) {
  Block& block = *self().block;
  if (block.arrived == 0) {
    block.barrier = where;
  } else if (block.barrier.line() != where.line()) {
    fail("divergent barrier: __syncthreads at ", where, " meets the one at ", block.barrier);
  }
  ++block.arrived;
  self().where = where;
  yield_to_driver(State::kBlockBarrier);
}

inline void grid_barrier(const Where& where) {
  if (!process().grid->cooperative) {
    fail("grid_sync at ", where, " in a kernel not started by launch_cooperative");
  }
  self().where = where;
  yield_to_driver(State::kGridBarrier);
}

// Waits until `condition` holds: what a spin loop on global memory becomes.
inline void wait_until(const std::function<bool()>& condition, const Where& where) {
  if (condition()) return;
  self().where = where;
  self().condition = &condition;
  yield_to_driver(State::kCondition);
}

// A place where the order of threads may matter (atomics): shuffled schedules stop here now and
// then.
inline void may_interleave() {
  Process& p = process();
  if (p.grid->schedule.order == Schedule::Order::kShuffled && p.random() % 4 == 0) {
    yield_to_driver(State::kReady);
  }
}

// The last lane of `mask` to arrive lets the others go on.
inline void warp_barrier(std::uint32_t mask, const Where& where) {
  Thread& thread = self();
  Warp& warp = *thread.warp;
  const std::uint32_t bit = 1U << thread.lane();
  if ((mask & bit) == 0) {
    fail("warp collective at ", where, ": the calling lane is not in its own mask");
  }
  auto pending = std::find_if(warp.pending.begin(), warp.pending.end(),
                              [&](const WarpBarrier& other) { return (other.mask & mask) != 0; });
  if (pending == warp.pending.end()) {
    pending = warp.pending.insert(pending, WarpBarrier{mask, 0, where});
  } else if (pending->mask != mask || pending->where.line() != where.line()) {
    fail("warp collective at ", where, " meets the one at ", pending->where,
         " with another mask or place");
  }
  pending->arrived |= bit;
  if (pending->arrived != mask) {
    thread.where = where;
    yield_to_driver(State::kWarpBarrier);
    return;
  }
  warp.pending.erase(pending);
  for (unsigned lane = 0; lane < warp.size; ++lane) {
    if ((mask >> lane & 1U) != 0 && lane != thread.lane()) warp.threads[lane].state = State::kReady;
  }
}

// ---- The driver
// -------------------------------------------------------------------------------------

class Driver {
 public:
  explicit Driver(Grid& grid) : grid_(grid) {
    process().random.seed(grid.schedule.seed);
    for (const auto& block : grid.blocks) alive_ += block->threads.size();
  }

  void run() {
    while (alive_ > 0) {
      bool progress = false;
      const Permutation order = permutation(grid_.blocks.size());
      for (std::size_t i = 0; i < grid_.blocks.size(); ++i) {
        progress |= run_block(*grid_.blocks[order(i)]);
      }
      progress |= release_grid_barrier();
      if (!progress) throw Error(deadlock());
    }
  }

 private:
  // start, start + step, start + 2 step, ... modulo size
  struct Permutation {
    std::size_t start, step, size;
    std::size_t operator()(std::size_t i) const { return (start + i * step) % size; }
  };

  Permutation permutation(std::size_t size) const {
    switch (grid_.schedule.order) {
      case Schedule::Order::kForward:
        return {0, 1, size};
      case Schedule::Order::kReverse:
        return {size - 1, size - 1, size};
      case Schedule::Order::kShuffled:
        break;
    }
    std::size_t step = 1 + process().random() % size;
    while (greatest_common_divisor(step, size) != 1) step = step % size + 1;
    return {process().random() % size, step, size};
  }

  static std::size_t greatest_common_divisor(std::size_t a, std::size_t b) {
    return b == 0 ? a : greatest_common_divisor(b, a % b);
  }

  bool run_block(Block& block) {
    if (block.done == block.threads.size()) return false;
    bool any = false;
    bool progress = true;
    while (progress) {
      progress = false;
      const Permutation order = permutation(block.warps.size());
      for (std::size_t i = 0; i < block.warps.size(); ++i) {
        progress |= run_warp(block.warps[order(i)]);
      }
      progress |= release_block_barrier(block);
      any |= progress;
      if (!grid_.schedule.greedy) break;
    }
    return any;
  }

  bool run_warp(Warp& warp) {
    bool any = false;
    bool progress = true;
    while (progress) {
      progress = false;
      const Permutation order = permutation(warp.size);
      for (std::size_t i = 0; i < warp.size; ++i) progress |= run_thread(warp.threads[order(i)]);
      any |= progress;
      if (!grid_.schedule.greedy) break;
    }
    return any;
  }

  bool run_thread(Thread& thread) {
    if (thread.state == State::kCondition && (*thread.condition)()) thread.state = State::kReady;
    if (thread.state != State::kReady) return false;
    Process& p = process();
    p.thread = &thread;
    thread.fiber.resume(p.driver);
    p.thread = nullptr;
    if (!p.error.empty()) throw Error(std::exchange(p.error, {}));
    if (thread.state == State::kDone) {
      --alive_;
      ++thread.block->done;
      if (!thread.fiber.stack_intact()) throw Error("stack overflow in a kernel");
    }
    return true;
  }

  // Threads that have returned count as arrived.
  static bool release_block_barrier(Block& block) {
    if (block.arrived == 0 || block.arrived + block.done != block.threads.size()) return false;
    block.arrived = 0;
    for (Thread& thread : block.threads) {
      if (thread.state == State::kBlockBarrier) thread.state = State::kReady;
    }
    return true;
  }

  bool release_grid_barrier() {
    std::size_t waiting = 0;
    for_each_thread([&](const Thread& t) { waiting += t.state == State::kGridBarrier ? 1 : 0; });
    if (waiting == 0 || waiting != alive_) return false;
    for_each_thread([](Thread& t) {
      if (t.state == State::kGridBarrier) t.state = State::kReady;
    });
    return true;
  }

  template <class F>
  void for_each_thread(F f) const {
    for (const auto& block : grid_.blocks) {
      for (Thread& thread : block->threads) f(thread);
    }
  }

  std::string deadlock() const {
    static constexpr const char* kNames[] = {"ready",        "__syncthreads",   "warp collective",
                                             "grid barrier", "value in memory", "returned"};
    std::map<std::string, int> waiting;
    for_each_thread([&](const Thread& t) {
      const std::string place = t.state == State::kDone ? "" : text(" at ", t.where);
      ++waiting[kNames[static_cast<int>(t.state)] + place];
    });
    std::string report = "deadlock (divergent barrier?):";
    for (const auto& [what, count] : waiting) {
      report += text(" ", count, " threads: ", what, ";");
    }
    if (!grid_.cooperative && grid_.grid_dim.x * grid_.grid_dim.y * grid_.grid_dim.z > 1) {
      report += " blocks run one after another unless started by launch_cooperative";
    }
    return report;
  }

  Grid& grid_;
  std::size_t alive_ = 0;
};

// ---- A launch
// -----------------------------------------------------------------------------------------

inline void thread_main() {
  Thread& thread = self();
  thread.fiber.entered();
  process().grid->body();
  if (!thread.copies.empty() || !thread.open_copies.empty()) {
    fail("kernel ended before cp_async_wait");
  }
  yield_to_driver(State::kDone);
  std::abort();
}

inline std::unique_ptr<Block> make_block(const Grid& grid, unsigned linear) {
  auto block = std::make_unique<Block>();
  const dim3 g = grid.grid_dim;
  const dim3 b = grid.block_dim;
  block->index = dim3(linear % g.x, linear / g.x % g.y, linear / g.x / g.y);
  block->threads.resize(std::size_t{b.x} * b.y * b.z);
  block->warps.resize((block->threads.size() + kLanes - 1) / kLanes);
  block->dynamic_shared = shared_array(grid.dynamic_bytes, 1024);
  for (unsigned i = 0; i < block->threads.size(); ++i) {
    Thread& thread = block->threads[i];
    thread.linear = i;
    thread.index = dim3(i % b.x, i / b.x % b.y, i / b.x / b.y);
    thread.block = block.get();
    thread.warp = &block->warps[i / kLanes];
    if (thread.warp->size++ == 0) thread.warp->threads = &thread;
    thread.fiber.start(process().stacks, thread_main);
  }
  return block;
}

// Runs grid.blocks; their stacks go back to the pool whatever happens.
inline void drive(Grid& grid) {
  struct Release {
    Grid& grid;
    ~Release() {
      for (const auto& block : grid.blocks) {
        for (Thread& thread : block->threads) thread.fiber.release(process().stacks);
      }
      grid.blocks.clear();
      process().grid = nullptr;
    }
  } const release{grid};
  process().grid = &grid;
  Driver(grid).run();
}

inline void check_launch(const Grid& grid) {
  const Device& device = process().device;
  const dim3 b = grid.block_dim;
  const std::size_t threads = std::size_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > static_cast<std::size_t>(device.max_block_threads) ||
      grid.dynamic_bytes > device.max_shared_bytes || grid.grid_dim.x == 0 ||
      grid.grid_dim.y == 0 || grid.grid_dim.y > 65535 || grid.grid_dim.z == 0 ||
      grid.grid_dim.z > 65535) {
    throw Error(text("invalid launch: grid ", grid.grid_dim, ", block ", b, ", ",
                     grid.dynamic_bytes, " bytes of shared memory"));
  }
}

// Blocks of a cooperative launch are all resident; others run one after another.
inline void run_grid(bool cooperative, dim3 grid_dim, dim3 block_dim, std::size_t dynamic_bytes,
                     std::function<void()> body) {
  Grid grid{.grid_dim = grid_dim,
            .block_dim = block_dim,
            .dynamic_bytes = dynamic_bytes,
            .cooperative = cooperative,
            .schedule = process().schedule,
            .body = std::move(body),
            .blocks = {}};
  check_launch(grid);
  const unsigned count = grid_dim.x * grid_dim.y * grid_dim.z;
  const bool backwards = grid.schedule.order == Schedule::Order::kReverse;
  for (unsigned i = 0; i < count; ++i) {
    grid.blocks.push_back(make_block(grid, backwards ? count - 1 - i : i));
    if (!cooperative) drive(grid);
  }
  if (cooperative) drive(grid);
}

}  // namespace cuda_on_cpu

// SPDX-License-Identifier: Apache-2.0
//
// Random numbers by counter: the stream of item i depends on (seed, i, round) alone, so results do
// not depend on the number of threads or on how a batch is cut.
//
// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014);
// bounded numbers by Lemire's multiplication with rejection, exactly uniform.

#pragma once

#include <cstdint>

namespace a2v {

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t item, std::uint64_t round)
      : state_(finish(finish(finish(seed + kStep) ^ (item + kStep)) ^ (round + kStep))) {}

  std::uint64_t next() { return finish(state_ += kStep); }

  // Uniform in 0..bound-1; bound > 0.
  std::uint32_t below(std::uint32_t bound) {
    std::uint64_t product = (next() >> 32) * bound;
    if (static_cast<std::uint32_t>(product) < bound) {
      const std::uint32_t reject = (0u - bound) % bound;
      while (static_cast<std::uint32_t>(product) < reject) product = (next() >> 32) * bound;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;

  static constexpr std::uint64_t finish(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// MD5 over eight messages a pass, with the compiler's vector extension: it becomes two SSE
// registers on baseline x86-64, NEON pairs on arm64, one register where AVX2 is enabled, without a
// line of assembly. The chain of 64 dependent steps has little parallelism of its own; two
// registers side by side fill it.

#include "md5.h"

#include <bit>
#include <cstring>

namespace a2v {

namespace {

static_assert(std::endian::native == std::endian::little, "MD5 words are read in place");

constexpr int kLanes = 8;
typedef std::uint32_t Lanes __attribute__((vector_size(4 * kLanes)));

constexpr std::uint32_t kSine[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
constexpr std::uint32_t kInitial[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
constexpr int kRotate[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

// Step `kStep` of 64; the caller renames the registers instead of moving them.
template <int kStep>
inline void step(Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d, const Lanes* words) {
  constexpr int kRound = kStep / 16;
  constexpr int kWord = kRound == 0   ? kStep
                        : kRound == 1 ? (5 * kStep + 1) % 16
                        : kRound == 2 ? (3 * kStep + 5) % 16
                                      : 7 * kStep % 16;
  constexpr int kShift = kRotate[kRound][kStep % 4];
  Lanes mixed;
  if constexpr (kRound == 0) mixed = d ^ (b & (c ^ d));
  if constexpr (kRound == 1) mixed = c ^ (d & (b ^ c));
  if constexpr (kRound == 2) mixed = b ^ c ^ d;
  if constexpr (kRound == 3) mixed = c ^ (b | ~d);
  const Lanes sum = a + mixed + words[kWord] + kSine[kStep];
  a = b + ((sum << kShift) | (sum >> (32 - kShift)));
}

template <int kStep>
inline void steps_from(Lanes* s, const Lanes* words) {
  if constexpr (kStep < 64) {
    step<kStep>(s[0], s[1], s[2], s[3], words);
    step<kStep + 1>(s[3], s[0], s[1], s[2], words);
    step<kStep + 2>(s[2], s[3], s[0], s[1], words);
    step<kStep + 3>(s[1], s[2], s[3], s[0], words);
    steps_from<kStep + 4>(s, words);
  }
}

// Hashes up to eight jobs of one length; idle lanes repeat the first job.
void md5_lanes(const Md5Job* jobs, int count) {
  Lanes state[4];
  for (int i = 0; i < 4; ++i) state[i] = Lanes{} + kInitial[i];
  for (int block = 0; block < jobs[0].blocks; ++block) {
    std::uint32_t gathered[16][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      std::uint32_t message[16];
      std::memcpy(message, jobs[lane < count ? lane : 0].message + block * kMd5Block, kMd5Block);
      for (int w = 0; w < 16; ++w) gathered[w][lane] = message[w];
    }
    Lanes words[16];
    std::memcpy(words, gathered, sizeof(words));
    Lanes s[4] = {state[0], state[1], state[2], state[3]};
    steps_from<0>(s, words);
    for (int i = 0; i < 4; ++i) state[i] += s[i];
  }
  for (int lane = 0; lane < count; ++lane)
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t word = state[i][lane];
      std::memcpy(jobs[lane].digest + 4 * i, &word, 4);
    }
}

}  // namespace

int md5_pad(std::uint8_t* message, std::size_t length) {
  const std::size_t padded = (length + 9 + kMd5Block - 1) / kMd5Block * kMd5Block;
  std::memset(message + length, 0, padded - length);
  message[length] = 0x80;
  const std::uint64_t bits = 8 * static_cast<std::uint64_t>(length);
  std::memcpy(message + padded - 8, &bits, 8);
  return static_cast<int>(padded / kMd5Block);
}

void md5_many(const std::vector<Md5Job>& jobs) {
  struct Waiting {
    Md5Job jobs[kLanes];
    int count = 0;
  };
  std::vector<Waiting> by_length;
  for (const Md5Job& job : jobs) {
    const auto length = static_cast<std::size_t>(job.blocks);
    if (length >= by_length.size()) by_length.resize(length + 1);
    Waiting& waiting = by_length[length];
    waiting.jobs[waiting.count++] = job;
    if (waiting.count < kLanes) continue;
    md5_lanes(waiting.jobs, kLanes);
    waiting.count = 0;
  }
  for (const Waiting& waiting : by_length)
    if (waiting.count > 0) md5_lanes(waiting.jobs, waiting.count);
}

}  // namespace a2v

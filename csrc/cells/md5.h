// SPDX-License-Identifier: Apache-2.0
//
// MD5 (RFC 1321) of many short messages at once. The benchmark names its cells by nested MD5 sums,
// 57 a cell; one message after another would keep the whole enumeration waiting for seconds.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace a2v {

inline constexpr int kMd5Block = 64;

// A message in a buffer of whole blocks, padded by md5_pad, and where its 16-byte digest goes.
struct Md5Job {
  const std::uint8_t* message;
  int blocks;
  std::uint8_t* digest;
};

// Pads `length` bytes in place as the RFC asks and returns the number of blocks. The buffer must
// hold length + 72 bytes.
int md5_pad(std::uint8_t* message, std::size_t length);

// Hashes all jobs, those of one length together, so that lanes run full.
void md5_many(const std::vector<Md5Job>& jobs);

}  // namespace a2v

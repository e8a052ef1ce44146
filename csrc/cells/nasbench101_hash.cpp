// SPDX-License-Identifier: Apache-2.0
//
// The benchmark's name of a cell: a Weisfeiler-Lehman style hash over MD5 in hexadecimal text.
//
//   h_v = md5("(out degree, in degree, label)")            label -1 input, -2 output, else listed operation
//   as often as there are nodes:  h_v = md5(sorted hashes of predecessors | of successors | h_v)
//   name = md5(str(sorted list of h_v))
//
// Cells are taken a few at a time, so that all their messages of a round fill the lanes of md5_many.

#include <algorithm>
#include <cstring>
#include <vector>

#include "md5.h"
#include "nasbench101.h"
#include "parallel.h"

namespace a2v {

namespace {

constexpr int kNodes = kNasBench101.num_nodes;
constexpr int kGroup = 16;
constexpr int kBuffer = 6 * kMd5Block;  // the longest message, the list of seven hashes, takes five
constexpr int kHex = 32;

struct Digest {
  std::uint8_t bytes[16];
};

char* write_hex(const Digest& digest, char* text) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const std::uint8_t byte : digest.bytes) {
    *text++ = kDigits[byte >> 4];
    *text++ = kDigits[byte & 15];
  }
  return text;
}

char* write_text(const char* from, char* text) {
  const std::size_t length = std::strlen(from);
  std::memcpy(text, from, length);
  return text + length;
}

// One cell on its way through the rounds.
class HashedCell {
 public:
  void start(const Cell& cell) {
    cell_ = cell;
    successors(kNasBench101, cell, succs_);
    nodes_ = num_present(kNasBench101, cell);
  }

  int nodes() const { return nodes_; }

  void queue_first(std::vector<Md5Job>& jobs) {
    for (int v = 0; v < nodes_; ++v) {
      char* text = begin_message(v);
      *text++ = '(';
      *text++ = static_cast<char>('0' + std::popcount(succs_[v]));
      text = write_text(", ", text);
      *text++ = static_cast<char>('0' + std::popcount(cell_.preds[v]));
      text = write_text(", ", text);
      text = write_text(label_text(v), text);
      *text++ = ')';
      queue(v, text, jobs);
    }
  }

  void queue_round(std::vector<Md5Job>& jobs) {
    sort_nodes();
    for (int v = 0; v < nodes_; ++v) {
      char* text = write_neighbours(cell_.preds[v], begin_message(v));
      *text++ = '|';
      text = write_neighbours(succs_[v], text);
      *text++ = '|';
      std::memcpy(text, hex_[v], kHex);
      queue(v, text + kHex, jobs);
    }
  }

  void queue_last(std::vector<Md5Job>& jobs, std::uint8_t* name) {
    sort_nodes();
    char* text = begin_message(0);
    for (int i = 0; i < nodes_; ++i) {
      text = write_text(i == 0 ? "['" : ", '", text);
      std::memcpy(text, hex_[sorted_[i]], kHex);
      text += kHex;
      *text++ = '\'';
    }
    *text++ = ']';
    queue(0, text, jobs);
    jobs.back().digest = name;
  }

 private:
  const char* label_text(int v) const {
    constexpr const char* kTexts[] = {"-1", "1", "0", "2", "-2"};  // by operation type of this space
    return kTexts[cell_.label[v] - 1];
  }

  char* begin_message(int v) { return reinterpret_cast<char*>(buffers_[v]); }

  void queue(int v, char* end, std::vector<Md5Job>& jobs) {
    const auto length = static_cast<std::size_t>(end - begin_message(v));
    jobs.push_back({buffers_[v], md5_pad(buffers_[v], length), digests_[v].bytes});
  }

  // Lower-case hexadecimal sorts as the bytes do.
  void sort_nodes() {
    for (int v = 0; v < nodes_; ++v) {
      sorted_[v] = v;
      write_hex(digests_[v], hex_[v]);
    }
    std::sort(sorted_, sorted_ + nodes_, [this](int a, int b) {
      return std::memcmp(digests_[a].bytes, digests_[b].bytes, sizeof(Digest)) < 0;
    });
  }

  char* write_neighbours(std::uint32_t mask, char* text) const {
    for (int i = 0; i < nodes_; ++i) {
      if ((mask >> sorted_[i] & 1u) == 0) continue;
      std::memcpy(text, hex_[sorted_[i]], kHex);
      text += kHex;
    }
    return text;
  }

  Cell cell_;
  std::uint16_t succs_[kMaxNodes] = {};
  int nodes_ = 0;
  int sorted_[kNodes] = {};
  Digest digests_[kNodes] = {};
  char hex_[kNodes][kHex] = {};
  std::uint8_t buffers_[kNodes][kBuffer] = {};
};

void hash_group(const std::uint64_t* codes, std::int64_t count, std::vector<HashedCell>& cells,
                std::vector<Md5Job>& jobs, std::uint8_t* digests) {
  const auto run = [&jobs] {
    md5_many(jobs);
    jobs.clear();
  };
  const auto size = static_cast<std::size_t>(count);
  for (std::size_t i = 0; i < size; ++i) {
    cells[i].start(unpack_cell(kNasBench101, codes + i));
    cells[i].queue_first(jobs);
  }
  run();
  for (int round = 0; round < kNodes; ++round) {
    for (std::size_t i = 0; i < size; ++i)
      if (round < cells[i].nodes()) cells[i].queue_round(jobs);
    run();
  }
  for (std::size_t i = 0; i < size; ++i) cells[i].queue_last(jobs, digests + 16 * i);
  run();
}

}  // namespace

void nasbench_hashes(const std::uint64_t* codes, std::int64_t count, int threads,
                     std::uint8_t* digests) {
  parallel_for(count, 1024, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<HashedCell> cells(kGroup);
    std::vector<Md5Job> jobs;
    for (std::int64_t first = begin; first < end; first += kGroup)
      hash_group(codes + first, std::min<std::int64_t>(kGroup, end - first), cells, jobs,
                 digests + 16 * first);
  });
}

}  // namespace a2v

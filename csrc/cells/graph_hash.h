// SPDX-License-Identifier: Apache-2.0
//
// The NAS-Bench-101 name of a labelled graph: a Weisfeiler-Lehman style hash over MD5 in
// hexadecimal text. The released arch2vec code names its DARTS cells by it too.
//
//   h_v = md5("(out degree, in degree, label)")
//   as often as there are nodes:  h_v = md5(sorted hashes of predecessors | of successors | h_v)
//   name = md5(str(sorted list of h_v))
//
// Cells are taken a few at a time, so that all their messages of a round fill the lanes of
// md5_many. Defined for cells without absent nodes between present ones.
//
// Source: Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <vector>

#include "md5.h"
#include "packed_cell.h"
#include "parallel.h"

namespace a2v {

// The two hexadecimal digits of every byte.
struct HexTable {
  char digits[256][2] = {};

  constexpr HexTable() {
    constexpr char kDigits[] = "0123456789abcdef";
    for (int byte = 0; byte < 256; ++byte) {
      digits[byte][0] = kDigits[byte >> 4];
      digits[byte][1] = kDigits[byte & 15];
    }
  }
};

inline constexpr HexTable kHexTable;

// One cell of at most kNodes nodes on its way through the rounds. `names` holds the number that
// stands for each operation type in the first message.
template <int kNodes>
class HashedCell {
 public:
  void start(const CellLayout& layout, const int* names, const Cell& cell) {
    cell_ = cell;
    names_ = names;
    successors(layout, cell, succs_);
    nodes_ = num_present(layout, cell);
  }

  int nodes() const { return nodes_; }

  void queue_first(std::vector<Md5Job>& jobs) {
    for (int v = 0; v < nodes_; ++v) {
      char* text = begin_message(v);
      *text++ = '(';
      text = write_number(std::popcount(succs_[v]), text);
      text = write_text(", ", text);
      text = write_number(std::popcount(cell_.preds[v]), text);
      text = write_text(", ", text);
      text = write_number(names_[cell_.label[v] - 1], text);
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
  static constexpr int kHex = 32;
  // The longest message is the list of all hashes with quotes and commas; md5_pad asks for 72 more.
  static constexpr int kBuffer = kNodes * (kHex + 4) + 72;

  struct Digest {
    std::uint8_t bytes[16];
  };

  static char* write_text(const char* from, char* text) {
    const std::size_t length = std::strlen(from);
    std::memcpy(text, from, length);
    return text + length;
  }

  static char* write_number(int number, char* text) {
    return std::to_chars(text, text + 12, number).ptr;
  }

  static void write_hex(const Digest& digest, char* text) {
    for (int i = 0; i < 16; ++i) std::memcpy(text + 2 * i, kHexTable.digits[digest.bytes[i]], 2);
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
  const int* names_ = nullptr;
  std::uint16_t succs_[kMaxNodes] = {};
  int nodes_ = 0;
  int sorted_[kNodes] = {};
  Digest digests_[kNodes] = {};
  char hex_[kNodes][kHex] = {};
  std::uint8_t buffers_[kNodes][kBuffer] = {};
};

// Hashes `count` cells into 16 bytes each; `names` has one entry per operation type of the layout.
template <int kNodes>
void graph_hashes(const CellLayout& layout, const int* names, const std::uint64_t* codes,
                  std::int64_t count, int threads, std::uint8_t* digests) {
  constexpr std::int64_t kGroup = 16;
  const auto hash_group = [&](std::int64_t first, std::size_t size,
                              std::vector<HashedCell<kNodes>>& cells, std::vector<Md5Job>& jobs) {
    const auto run = [&jobs] {
      md5_many(jobs);
      jobs.clear();
    };
    const std::uint64_t* code = codes + first * layout.words();
    for (std::size_t i = 0; i < size; ++i, code += layout.words()) {
      cells[i].start(layout, names, unpack_cell(layout, code));
      cells[i].queue_first(jobs);
    }
    run();
    for (int round = 0; round < kNodes; ++round) {
      for (std::size_t i = 0; i < size; ++i)
        if (round < cells[i].nodes()) cells[i].queue_round(jobs);
      run();
    }
    for (std::size_t i = 0; i < size; ++i)
      cells[i].queue_last(jobs, digests + 16 * (first + static_cast<std::int64_t>(i)));
    run();
  };
  parallel_for(count, 1024, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<HashedCell<kNodes>> cells(kGroup);
    std::vector<Md5Job> jobs;
    for (std::int64_t first = begin; first < end; first += kGroup)
      hash_group(first, static_cast<std::size_t>(std::min(kGroup, end - first)), cells, jobs);
  });
}

}  // namespace a2v

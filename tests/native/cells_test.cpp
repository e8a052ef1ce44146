// SPDX-License-Identifier: Apache-2.0
//
// The cell core without Python, for AddressSanitizer and UndefinedBehaviorSanitizer: drives every
// entry point over small and large layouts, odd batch sizes and arbitrary bit patterns, and checks
// properties that need no second implementation. Values are checked in tests/spaces.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "cells/canonical.h"
#include "cells/darts.h"
#include "cells/dense.h"
#include "cells/enumerate.h"
#include "cells/nasbench101.h"
#include "cells/packed_cell.h"
#include "cells/rules.h"
#include "cells/sample.h"

namespace {

using Codes = std::vector<std::uint64_t>;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::exit(1);
}

std::size_t count_of(std::int64_t count, int width) {
  return static_cast<std::size_t>(count) * static_cast<std::size_t>(width);
}

// Any well-formed cell, sensible or not: what a decoder may write.
a2v::Cell any_cell(const a2v::CellLayout& layout, std::mt19937_64& random) {
  a2v::Cell cell;
  for (int v = 0; v < layout.num_nodes; ++v) {
    cell.preds[v] = static_cast<std::uint16_t>(random() & ((1U << v) - 1U));
    cell.label[v] =
        static_cast<std::uint8_t>(random() % (static_cast<unsigned>(layout.num_op_types) + 1U));
  }
  return cell;
}

Codes any_codes(const a2v::CellLayout& layout, std::int64_t count, std::mt19937_64& random) {
  Codes codes(count_of(count, layout.words()));
  for (std::size_t w = 0; w < codes.size(); w += static_cast<std::size_t>(layout.words())) {
    a2v::pack_cell(layout, any_cell(layout, random), &codes[w]);
  }
  return codes;
}

void packing_round_trips(const a2v::CellLayout& layout) {
  std::mt19937_64 random(1);
  Codes words(static_cast<std::size_t>(layout.words()));
  for (int i = 0; i < 200; ++i) {
    const a2v::Cell cell = any_cell(layout, random);
    a2v::pack_cell(layout, cell, words.data());
    expect(a2v::is_well_formed(layout, words.data()), "packed cells are well formed");
    expect(a2v::unpack_cell(layout, words.data()) == cell, "unpack inverts pack");
    for (std::uint64_t& word : words) word = random();
    static_cast<void>(a2v::is_well_formed(layout, words.data()));  // any bits may be asked about
  }
}

void dense_round_trips(const a2v::CellLayout& layout) {
  std::mt19937_64 random(2);
  const std::int64_t count = 33;
  const Codes codes = any_codes(layout, count, random);
  std::vector<std::uint8_t> adjacency(count_of(count, layout.num_nodes * layout.num_nodes));
  std::vector<std::int16_t> node_ops(count_of(count, layout.num_nodes));
  a2v::unpack_dense(layout, codes.data(), count, adjacency.data(), node_ops.data());
  Codes again(codes.size());
  expect(a2v::pack_dense(layout, adjacency.data(), node_ops.data(), count, again.data()).empty(),
         "dense cells are accepted");
  expect(again == codes, "pack_dense inverts unpack_dense");
  node_ops.back() = static_cast<std::int16_t>(layout.num_op_types);
  expect(!a2v::pack_dense(layout, adjacency.data(), node_ops.data(), count, again.data()).empty(),
         "unknown operations are refused");
}

void canonical_form_is_idempotent(const a2v::CellLayout& layout) {
  std::mt19937_64 random(3);
  const std::int64_t count = 65;
  const Codes codes = any_codes(layout, count, random);
  Codes once(codes.size());
  Codes twice(codes.size());
  a2v::canonical_codes(layout, codes.data(), count, 2, once.data());
  a2v::canonical_codes(layout, once.data(), count, 1, twice.data());
  expect(once == twice, "canonical form is idempotent");
}

void sampling_and_editing_obey_the_rules(const a2v::CellLayout& layout,
                                         const a2v::SpaceRules& rules) {
  const std::int64_t count = 33;
  std::vector<std::int64_t> items(static_cast<std::size_t>(count));
  std::iota(items.begin(), items.end(), 0);
  Codes drawn(count_of(count, layout.words()));
  expect(
      a2v::sample_cells(layout, rules, 7, items.data(), count, 0, 1'000'000, 2, drawn.data()) == -1,
      "sampling succeeds");
  Codes edited(drawn.size());
  std::vector<std::int64_t> start(items.size(), 0);
  a2v::edit_cells(layout, rules, drawn.data(), items.data(), count, 7, true, 2, start.data(),
                  edited.data());
  for (const Codes* codes : {&drawn, &edited}) {
    for (std::size_t w = 0; w < codes->size(); w += static_cast<std::size_t>(layout.words())) {
      const a2v::Cell cell = a2v::unpack_cell(layout, codes->data() + w);
      expect(a2v::find_fault(layout, rules, cell) == a2v::RuleFault::kNone,
             "sampled and edited cells obey the rules");
    }
  }
}

void chunks_make_the_whole_space(const a2v::CellLayout& layout, const a2v::SpaceRules& rules) {
  const Codes whole = a2v::enumerate_sorted(layout, rules, 2);
  a2v::Enumerator walk(layout, rules);
  Codes streamed;
  Codes chunk(count_of(101, layout.words()));
  for (;;) {
    const std::int64_t found = walk.next(101, chunk.data());
    if (found == 0) break;
    streamed.insert(streamed.end(), chunk.begin(),
                    chunk.begin() + static_cast<std::ptrdiff_t>(found * layout.words()));
  }
  expect(layout.words() == 1, "the sort below is that of one-word codes");
  std::sort(streamed.begin(), streamed.end());
  expect(streamed == whole, "chunks make the whole space");
}

void nasbench101_takes_any_cell() {
  const a2v::CellLayout layout = a2v::kNasBench101;
  std::mt19937_64 random(4);
  for (int i = 0; i < 2'000; ++i) {
    const a2v::Cell cell = any_cell(layout, random);
    a2v::Cell pruned;
    static_cast<void>(a2v::judge(cell, true));
    if (a2v::judge(cell, false) != a2v::NasBench101Fault::kNone) continue;
    expect(a2v::prune(cell, pruned), "cells the benchmark accepts can be pruned");
    expect(a2v::judge(pruned, true) == a2v::NasBench101Fault::kNone, "nothing is left to prune");
    expect(a2v::num_parameters(pruned) > 0, "networks have parameters");
    static_cast<void>(a2v::benchmark_labelling(pruned));
  }
  const Codes codes = a2v::enumerate_sorted({5, 5}, a2v::kNasBench101Rules, 1);
  expect(codes.size() == 1 + 6 + 84 + 2'441, "cells of up to five nodes");
}

void hashes_take_odd_batches() {
  const a2v::CellLayout layout = a2v::kNasBench101;
  std::vector<std::int64_t> items(37);
  std::iota(items.begin(), items.end(), 0);
  Codes codes(items.size());
  expect(a2v::sample_cells(layout, a2v::kNasBench101Rules, 1, items.data(), 37, 0, 1'000'000, 1,
                           codes.data()) == -1,
         "sampling succeeds");
  for (const std::int64_t count : {0, 1, 7, 9, 37}) {
    std::vector<std::uint8_t> one(count_of(count, 16));
    std::vector<std::uint8_t> two(count_of(count, 16));
    a2v::nasbench_hashes(codes.data(), count, 1, one.data());
    a2v::nasbench_hashes(codes.data(), count, 2, two.data());
    expect(one == two, "hashes do not depend on threads");
  }
}

void darts_takes_any_cell() {
  std::mt19937_64 random(5);
  const Codes junk = any_codes(a2v::kDartsLayout, 2'000, random);
  a2v::DartsEdges edges{};
  for (std::size_t w = 0; w < junk.size(); w += 2) {
    static_cast<void>(a2v::unpack_darts(&junk[w], edges));
    static_cast<void>(a2v::released_darts_fault(&junk[w]));
  }
  for (int i = 0; i < 500; ++i) {
    a2v::DartsEdges genotype{};
    for (std::size_t node = 0; node < 4; ++node) {
      const std::uint64_t inputs = node + 2;
      const std::uint64_t first = random() % inputs;
      const std::uint64_t second = (first + 1 + random() % (inputs - 1)) % inputs;
      genotype[4 * node] = static_cast<std::uint8_t>(first);
      genotype[4 * node + 1] = static_cast<std::uint8_t>(random() % a2v::kDartsOps);
      genotype[4 * node + 2] = static_cast<std::uint8_t>(second);
      genotype[4 * node + 3] = static_cast<std::uint8_t>(random() % a2v::kDartsOps);
    }
    std::uint64_t words[2];
    a2v::pack_darts(genotype, words);
    expect(a2v::unpack_darts(words, edges) == a2v::DartsFault::kNone, "genotypes are valid");
    expect(edges == genotype, "unpack_darts inverts pack_darts");
    std::uint8_t digest[16];
    a2v::darts_hashes(words, 1, 1, digest);
  }
}

}  // namespace

int main() {
  for (const a2v::CellLayout layout :
       {a2v::CellLayout{2, 1}, a2v::CellLayout{7, 5}, a2v::CellLayout{8, 7},
        a2v::CellLayout{11, 11}, a2v::CellLayout{13, 20}, a2v::CellLayout{16, 254}}) {
    packing_round_trips(layout);
    dense_round_trips(layout);
    canonical_form_is_idempotent(layout);
  }
  const a2v::SpaceRules fixed{.num_inputs = 2, .has_output = true, .max_edges = 20};
  const a2v::SpaceRules loose{.variable_size = true, .allow_dangling = true, .max_edges = 6};
  sampling_and_editing_obey_the_rules(a2v::kNasBench101, a2v::kNasBench101Rules);
  sampling_and_editing_obey_the_rules({12, 9}, fixed);
  sampling_and_editing_obey_the_rules({5, 3}, loose);
  chunks_make_the_whole_space({6, 5}, a2v::kNasBench101Rules);
  chunks_make_the_whole_space({5, 4}, fixed);
  chunks_make_the_whole_space({4, 2}, loose);
  nasbench101_takes_any_cell();
  hashes_take_odd_batches();
  darts_takes_any_cell();
  std::puts("cells_test: all properties hold");
  return 0;
}

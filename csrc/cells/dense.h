// SPDX-License-Identifier: Apache-2.0
//
// Dense cells <-> codes, whole batches, on raw pointers.
//
//   adjacency [B,N,N] uint8, row = source, upper triangular, 0 or 1
//   node_ops  [B,N]   int16, operation index or -1 for an absent node

#pragma once

#include <cstdint>
#include <string>

#include "packed_cell.h"

namespace a2v {

// Packs B cells. Returns an empty string, or one line that says what is wrong with the first bad
// cell; `codes` is then unspecified.
std::string pack_dense(const CellLayout& layout, const std::uint8_t* adjacency,
                       const std::int16_t* node_ops, std::int64_t count, std::uint64_t* codes);

void unpack_dense(const CellLayout& layout, const std::uint64_t* codes, std::int64_t count,
                  std::uint8_t* adjacency, std::int16_t* node_ops);

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
//
// What every binding of the cell core needs: codes [B,W] int64 in and out of numpy, checked once
// here.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "packed_cell.h"

namespace a2v {

namespace py = pybind11;

using CodeArray = py::array_t<std::int64_t, py::array::c_style>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

inline CellLayout make_layout(int num_nodes, int num_op_types) {
  const CellLayout layout{num_nodes, num_op_types};
  if (!layout.supported())
    throw std::invalid_argument("layout: " + std::to_string(num_nodes) + " nodes and " +
                                std::to_string(num_op_types) +
                                " operation types; supported are 2..16 and 1..254");
  return layout;
}

// A checked, read-only view of codes [B,W]. It borrows: the array must outlive it.
struct CodesView {
  CellLayout layout;
  const std::uint64_t* data = nullptr;
  std::int64_t count = 0;

  const std::uint64_t* row(std::int64_t b) const { return data + b * layout.words(); }
};

inline CodesView view_codes(const CodeArray& codes, int num_nodes, int num_op_types) {
  CodesView view{make_layout(num_nodes, num_op_types)};
  if (codes.ndim() != 2 || codes.shape(1) != view.layout.words())
    throw std::invalid_argument("codes: expected shape [B, " + std::to_string(view.layout.words()) +
                                "] for this layout");
  view.data = reinterpret_cast<const std::uint64_t*>(codes.data());
  view.count = codes.shape(0);
  return view;
}

inline CodeArray make_codes(std::int64_t count, const CellLayout& layout) {
  return CodeArray({static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(layout.words())});
}

inline std::uint64_t* code_data(CodeArray& codes) {
  return reinterpret_cast<std::uint64_t*>(codes.mutable_data());
}

}  // namespace a2v

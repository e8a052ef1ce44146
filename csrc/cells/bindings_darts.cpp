// SPDX-License-Identifier: Apache-2.0
//
// Python bindings of the DARTS functions of the cell core (NAS-Bench-201 needs none of its own: its
// cells differ in the labels of one word only, which numpy shifts out).

#include <pybind11/pybind11.h>

#include <algorithm>

#include "darts.h"
#include "numpy_codes.h"

namespace a2v {

namespace {

constexpr py::ssize_t kEdgeBytes = 2 * kDartsEdges;

CodeArray darts_pack(const ByteArray& edges) {
  if (edges.ndim() != 3 || edges.shape(1) != kDartsEdges || edges.shape(2) != 2)
    throw std::invalid_argument("edges: expected shape [B, 8, 2], (input, operation) pairs");
  const std::uint8_t* in = edges.data();
  CodeArray codes = make_codes(edges.shape(0), kDartsLayout);
  std::uint64_t* out = code_data(codes);
  const py::ssize_t count = edges.shape(0);
  py::gil_scoped_release release;
  for (py::ssize_t b = 0; b < count; ++b, in += kEdgeBytes, out += kDartsLayout.words()) {
    DartsEdges cell;
    std::copy_n(in, kEdgeBytes, cell.begin());
    for (int e = 0; e < kDartsEdges; ++e)
      if (in[2 * e] >= 2 + e / 2 || in[2 * e + 1] >= kDartsOps)
        throw std::invalid_argument("edges: an input or operation is out of range");
    pack_darts(cell, out);
  }
  return codes;
}

// (edges [B, 8, 2], fault [B]); the edges of a cell with a fault are zero.
py::tuple darts_unpack(const CodeArray& codes) {
  const CodesView view = view_codes(codes, kDartsLayout.num_nodes, kDartsLayout.num_op_types);
  ByteArray edges({view.count, std::int64_t{kDartsEdges}, std::int64_t{2}});
  ByteArray faults(view.count);
  std::uint8_t* out = edges.mutable_data();
  std::uint8_t* fault = faults.mutable_data();
  {
    py::gil_scoped_release release;
    for (std::int64_t b = 0; b < view.count; ++b, out += kEdgeBytes) {
      DartsEdges cell = {};
      fault[b] = static_cast<std::uint8_t>(unpack_darts(view.row(b), cell));
      if (fault[b] != 0) cell = {};
      std::copy(cell.begin(), cell.end(), out);
    }
  }
  return py::make_tuple(edges, faults);
}

ByteArray darts_released_fault(const CodeArray& codes) {
  const CodesView view = view_codes(codes, kDartsLayout.num_nodes, kDartsLayout.num_op_types);
  ByteArray faults(view.count);
  std::uint8_t* fault = faults.mutable_data();
  py::gil_scoped_release release;
  for (std::int64_t b = 0; b < view.count; ++b)
    fault[b] = static_cast<std::uint8_t>(released_darts_fault(view.row(b)));
  return faults;
}

ByteArray darts_hash(const CodeArray& codes, int threads) {
  const CodesView view = view_codes(codes, kDartsLayout.num_nodes, kDartsLayout.num_op_types);
  DartsEdges edges;
  for (std::int64_t b = 0; b < view.count; ++b)
    if (unpack_darts(view.row(b), edges) != DartsFault::kNone)
      throw std::invalid_argument("codes: cell " + std::to_string(b) + " has no genotype");
  ByteArray out({view.count, std::int64_t{16}});
  std::uint8_t* digests = out.mutable_data();
  py::gil_scoped_release release;
  darts_hashes(view.data, view.count, threads, digests);
  return out;
}

}  // namespace

void bind_darts(py::module_& m) {
  m.def("darts_pack", &darts_pack, py::arg("edges"));
  m.def("darts_unpack", &darts_unpack, py::arg("codes"));
  m.def("darts_released_fault", &darts_released_fault, py::arg("codes"));
  m.def("darts_hash", &darts_hash, py::arg("codes"), py::arg("threads") = 0);
}

}  // namespace a2v

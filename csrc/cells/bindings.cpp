// SPDX-License-Identifier: Apache-2.0
//
// Python module arch2vec_fast._cells: numpy arrays in and out, no torch.
//
// The functions are private to arch2vec_fast.spaces, which checks user input and words the errors;
// here only shapes are checked, so that no call can read out of bounds. Long loops release the GIL.

#include <pybind11/pybind11.h>

#include "canonical.h"
#include "dense.h"
#include "numpy_codes.h"
#include "wl_histogram.h"

namespace a2v {

void bind_spaces(py::module_& m);  // bindings_spaces.cpp
void bind_darts(py::module_& m);   // bindings_darts.cpp

namespace {

using OpArray = py::array_t<std::int16_t, py::array::c_style>;

CodeArray from_dense(const ByteArray& adjacency, const OpArray& node_ops, int num_nodes,
                     int num_op_types) {
  const CellLayout layout = make_layout(num_nodes, num_op_types);
  if (adjacency.ndim() != 3 || adjacency.shape(1) != num_nodes || adjacency.shape(2) != num_nodes)
    throw std::invalid_argument("adjacency: expected shape [B, N, N] with N of the layout");
  if (node_ops.ndim() != 2 || node_ops.shape(0) != adjacency.shape(0) ||
      node_ops.shape(1) != num_nodes)
    throw std::invalid_argument("node_ops: expected shape [B, N] matching adjacency");
  CodeArray codes = make_codes(adjacency.shape(0), layout);
  std::uint64_t* out = code_data(codes);
  std::string error;
  {
    py::gil_scoped_release release;
    error = pack_dense(layout, adjacency.data(), node_ops.data(), adjacency.shape(0), out);
  }
  if (!error.empty()) throw std::invalid_argument(error);
  return codes;
}

py::tuple to_dense(const CodeArray& codes, int num_nodes, int num_op_types) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  ByteArray adjacency({static_cast<py::ssize_t>(view.count), static_cast<py::ssize_t>(num_nodes),
                       static_cast<py::ssize_t>(num_nodes)});
  OpArray node_ops({static_cast<py::ssize_t>(view.count), static_cast<py::ssize_t>(num_nodes)});
  std::uint8_t* matrix = adjacency.mutable_data();
  std::int16_t* labels = node_ops.mutable_data();
  {
    py::gil_scoped_release release;
    unpack_dense(view.layout, view.data, view.count, matrix, labels);
  }
  return py::make_tuple(adjacency, node_ops);
}

std::int64_t first_malformed(const CodeArray& codes, int num_nodes, int num_op_types) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  for (std::int64_t b = 0; b < view.count; ++b)
    if (!is_well_formed(view.layout, view.row(b))) return b;
  return -1;
}

CodeArray canonical(const CodeArray& codes, int num_nodes, int num_op_types, int threads) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  CodeArray out = make_codes(view.count, view.layout);
  std::uint64_t* data = code_data(out);
  {
    py::gil_scoped_release release;
    canonical_codes(view.layout, view.data, view.count, threads, data);
  }
  return out;
}

template <typename Value>
py::array_t<Value> to_array(const std::vector<Value>& values) {
  return py::array_t<Value>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple wl_histogram(const CodeArray& codes, int num_nodes, int num_op_types, int depth) {
  if (depth < 0 || depth > kMaxNodes) throw std::invalid_argument("depth: outside 0..16");
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  WlHistograms found;
  {
    py::gil_scoped_release release;
    found = wl_histograms(view.layout, view.data, view.count, depth);
  }
  return py::make_tuple(to_array(found.starts), to_array(found.colours), to_array(found.counts),
                        found.num_colours);
}

template <typename Count>
py::array_t<std::int64_t> count_per_cell(const CodeArray& codes, int num_nodes, int num_op_types,
                                         Count count) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  py::array_t<std::int64_t> out(view.count);
  std::int64_t* data = out.mutable_data();
  for (std::int64_t b = 0; b < view.count; ++b)
    data[b] = count(view.layout, unpack_cell(view.layout, view.row(b)));
  return out;
}

}  // namespace

PYBIND11_MODULE(_cells, m) {
  m.doc() = "Packed cells: codecs, canonical form, enumeration, sampling (numpy in, numpy out).";
  const auto codes = py::arg("codes");
  const auto num_nodes = py::arg("num_nodes");
  const auto num_op_types = py::arg("num_op_types");

  m.def("from_dense", &from_dense, py::arg("adjacency"), py::arg("node_ops"), num_nodes,
        num_op_types);
  m.def("to_dense", &to_dense, codes, num_nodes, num_op_types);
  m.def("first_malformed", &first_malformed, codes, num_nodes, num_op_types);
  m.def(
      "num_present",
      [](const CodeArray& c, int n, int f) { return count_per_cell(c, n, f, num_present); }, codes,
      num_nodes, num_op_types);
  m.def(
      "num_edges",
      [](const CodeArray& c, int n, int f) { return count_per_cell(c, n, f, num_edges); }, codes,
      num_nodes, num_op_types);
  m.def("canonical", &canonical, codes, num_nodes, num_op_types, py::arg("threads") = 0);
  m.def("wl_histogram", &wl_histogram, codes, num_nodes, num_op_types, py::arg("depth"));
  bind_spaces(m);
  bind_darts(m);
}

}  // namespace a2v

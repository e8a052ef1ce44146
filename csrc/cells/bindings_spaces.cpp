// SPDX-License-Identifier: Apache-2.0
//
// Bindings of general spaces (rules, enumeration, sampling, edits) and of NAS-Bench-101.

#include <pybind11/pybind11.h>

#include <cstring>

#include "enumerate.h"
#include "nasbench101.h"
#include "numpy_codes.h"
#include "parallel.h"
#include "sample.h"

namespace a2v {

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

void check_rules(const CellLayout& layout, const SpaceRules& rules) {
  if (rules.num_inputs < 0 || rules.num_inner_ops(layout) < 0 || rules.max_edges < 0 ||
      rules.min_nodes(layout) > layout.num_nodes || rules.num_inputs + 1 > layout.num_nodes)
    throw std::invalid_argument("rules: inputs, output and edges do not fit the layout");
}

void check_length(const py::array& array, std::int64_t count, const char* name) {
  if (array.ndim() != 1 || array.shape(0) != count)
    throw std::invalid_argument(std::string(name) + ": expected one entry per cell");
}

CodeArray codes_from(const std::vector<std::uint64_t>& rows, const CellLayout& layout) {
  CodeArray out = make_codes(static_cast<std::int64_t>(rows.size()) / layout.words(), layout);
  if (!rows.empty()) std::memcpy(code_data(out), rows.data(), rows.size() * sizeof(rows[0]));
  return out;
}

// A resumable enumeration. Not for two threads at once: `next` moves it.
class PyEnumerator {
 public:
  PyEnumerator(int num_nodes, int num_op_types, const SpaceRules& rules)
      : layout_(make_layout(num_nodes, num_op_types)), walk_(checked(layout_, rules)) {}

  CodeArray next(std::int64_t limit) {
    if (limit < 1) throw std::invalid_argument("limit: must be positive");
    std::vector<std::uint64_t> rows(static_cast<std::size_t>(limit * layout_.words()));
    {
      py::gil_scoped_release release;
      const std::int64_t count = walk_.next(limit, rows.data());
      rows.resize(static_cast<std::size_t>(count * layout_.words()));
    }
    return codes_from(rows, layout_);
  }

 private:
  static Enumerator checked(const CellLayout& layout, const SpaceRules& rules) {
    check_rules(layout, rules);
    return Enumerator(layout, rules);
  }

  CellLayout layout_;
  Enumerator walk_;
};

CodeArray enumerate_cells(int num_nodes, int num_op_types, const SpaceRules& rules, int threads) {
  const CellLayout layout = make_layout(num_nodes, num_op_types);
  check_rules(layout, rules);
  std::vector<std::uint64_t> rows;
  {
    py::gil_scoped_release release;
    rows = enumerate_sorted(layout, rules, threads);
  }
  return codes_from(rows, layout);
}

ByteArray faults(const CodeArray& codes, int num_nodes, int num_op_types, const SpaceRules& rules) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  check_rules(view.layout, rules);
  ByteArray out(view.count);
  std::uint8_t* data = out.mutable_data();
  for (std::int64_t b = 0; b < view.count; ++b)
    data[b] = static_cast<std::uint8_t>(
        find_fault(view.layout, rules, unpack_cell(view.layout, view.row(b))));
  return out;
}

py::tuple sample(int num_nodes, int num_op_types, const SpaceRules& rules, std::uint64_t seed,
                 const IndexArray& items, std::int64_t round, std::int64_t max_attempts,
                 int threads) {
  const CellLayout layout = make_layout(num_nodes, num_op_types);
  check_rules(layout, rules);
  check_length(items, items.size(), "items");
  CodeArray out = make_codes(items.size(), layout);
  std::memset(code_data(out), 0, static_cast<std::size_t>(out.nbytes()));
  std::uint64_t* data = code_data(out);
  const std::int64_t* rows = items.data();
  const std::int64_t count = items.size();
  std::int64_t failed = -1;
  {
    py::gil_scoped_release release;
    failed = sample_cells(layout, rules, seed, rows, count, round, max_attempts, threads, data);
  }
  return py::make_tuple(out, failed);
}

py::tuple edit(const CodeArray& codes, int num_nodes, int num_op_types, const SpaceRules& rules,
               const IndexArray& items, const IndexArray& start, std::uint64_t seed, bool checked,
               int threads) {
  const CodesView view = view_codes(codes, num_nodes, num_op_types);
  check_rules(view.layout, rules);
  check_length(items, view.count, "items");
  check_length(start, view.count, "start");
  CodeArray out = make_codes(view.count, view.layout);
  IndexArray after(view.count);
  if (view.count > 0)
    std::memcpy(after.mutable_data(), start.data(), static_cast<std::size_t>(start.nbytes()));
  std::uint64_t* data = code_data(out);
  std::int64_t* position = after.mutable_data();
  const std::int64_t* rows = items.data();
  {
    py::gil_scoped_release release;
    edit_cells(view.layout, rules, view.data, rows, view.count, seed, checked, threads, position,
               data);
  }
  return py::make_tuple(out, after);
}

CodesView view_nasbench101(const CodeArray& codes) {
  return view_codes(codes, kNasBench101.num_nodes, kNasBench101.num_op_types);
}

ByteArray nasbench101_faults(const CodeArray& codes, bool strict) {
  const CodesView view = view_nasbench101(codes);
  ByteArray out(view.count);
  std::uint8_t* data = out.mutable_data();
  for (std::int64_t b = 0; b < view.count; ++b)
    data[b] = static_cast<std::uint8_t>(judge(unpack_cell(kNasBench101, view.row(b)), strict));
  return out;
}

// The functions below are defined for strictly valid cells; anything else is refused here.
void require_strictly_valid(const CodesView& view) {
  for (std::int64_t b = 0; b < view.count; ++b)
    if (judge(unpack_cell(kNasBench101, view.row(b)), true) != NasBench101Fault::kNone)
      throw std::invalid_argument("cells: cell " + std::to_string(b) +
                                  " is not a pruned, valid NAS-Bench-101 cell");
}

template <typename Change>
CodeArray change_each(const CodesView& view, const Change& change) {
  CodeArray out = make_codes(view.count, kNasBench101);
  std::uint64_t* data = code_data(out);
  py::gil_scoped_release release;
  parallel_for(view.count, 1024, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      pack_cell(kNasBench101, change(unpack_cell(kNasBench101, view.row(b))), data + b);
  });
  return out;
}

CodeArray nasbench101_prune(const CodeArray& codes) {
  return change_each(view_nasbench101(codes), [](const Cell& cell) {
    Cell out = cell;
    prune(cell, out);
    return out;
  });
}

CodeArray nasbench101_labelling(const CodeArray& codes) {
  const CodesView view = view_nasbench101(codes);
  require_strictly_valid(view);
  return change_each(view, benchmark_labelling);
}

IndexArray nasbench101_num_parameters(const CodeArray& codes) {
  const CodesView view = view_nasbench101(codes);
  require_strictly_valid(view);
  IndexArray out(view.count);
  std::int64_t* data = out.mutable_data();
  py::gil_scoped_release release;
  parallel_for(view.count, 1024, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      data[b] = num_parameters(unpack_cell(kNasBench101, view.row(b)));
  });
  return out;
}

ByteArray nasbench101_hash(const CodeArray& codes, int threads) {
  const CodesView view = view_nasbench101(codes);
  require_strictly_valid(view);
  ByteArray out({static_cast<py::ssize_t>(view.count), py::ssize_t{16}});
  std::uint8_t* data = out.mutable_data();
  py::gil_scoped_release release;
  nasbench_hashes(view.data, view.count, threads, data);
  return out;
}

}  // namespace

void bind_spaces(py::module_& m) {
  const auto codes = py::arg("codes");
  const auto num_nodes = py::arg("num_nodes");
  const auto num_op_types = py::arg("num_op_types");
  const auto rules = py::arg("rules");
  const auto threads = py::arg("threads") = 0;

  py::class_<SpaceRules>(m, "SpaceRules")
      .def(py::init([](int num_inputs, bool has_output, bool variable_size, bool allow_dangling,
                       int max_edges) {
             return SpaceRules{num_inputs, has_output, variable_size, allow_dangling, max_edges};
           }),
           py::kw_only(), py::arg("num_inputs"), py::arg("has_output"), py::arg("variable_size"),
           py::arg("allow_dangling"), py::arg("max_edges"));
  py::class_<PyEnumerator>(m, "Enumerator")
      .def(py::init<int, int, const SpaceRules&>(), num_nodes, num_op_types, rules)
      .def("next", &PyEnumerator::next, py::arg("limit"));
  m.def("enumerate_cells", &enumerate_cells, num_nodes, num_op_types, rules, threads);
  m.def("faults", &faults, codes, num_nodes, num_op_types, rules);
  m.def("sample", &sample, num_nodes, num_op_types, rules, py::kw_only(), py::arg("seed"),
        py::arg("items"), py::arg("round"), py::arg("max_attempts"), threads);
  m.def("edit", &edit, codes, num_nodes, num_op_types, rules, py::kw_only(), py::arg("items"),
        py::arg("start"), py::arg("seed"), py::arg("checked"), threads);

  m.def("nasbench101_faults", &nasbench101_faults, codes, py::arg("strict"));
  m.def("nasbench101_prune", &nasbench101_prune, codes);
  m.def("nasbench101_labelling", &nasbench101_labelling, codes);
  m.def("nasbench101_num_parameters", &nasbench101_num_parameters, codes);
  m.def("nasbench101_hash", &nasbench101_hash, codes, threads);
}

}  // namespace a2v

// SPDX-License-Identifier: Apache-2.0
// Argument checks of the boundary between Python and C++.
//
// Why not STD_TORCH_CHECK: its message starts with function, file and line, which tell a user
// nothing; and the cell core is built without torch. std::invalid_argument becomes ValueError,
// through pybind11 and through torch alike. Messages read `name: what was wrong; how to fix`.
// Checks of our own logic are assert()s in the kernels.
#pragma once

#include <sstream>
#include <stdexcept>

namespace a2v {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

}  // namespace a2v

// The parts are only evaluated, and only formatted, where the condition is false.
#define A2V_CHECK(condition, ...)    \
  do {                               \
    if (!(condition)) [[unlikely]] { \
      ::a2v::fail(__VA_ARGS__);      \
    }                                \
  } while (false)

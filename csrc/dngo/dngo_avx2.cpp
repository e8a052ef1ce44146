// SPDX-License-Identifier: Apache-2.0
// The kernels of dngo for the instruction set that this file's name gives; see CMakeLists.txt.

#include "dngo/dngo_acquire_kernel.h"
#include "dngo/dngo_fit_kernel.h"

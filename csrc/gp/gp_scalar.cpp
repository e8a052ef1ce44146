// SPDX-License-Identifier: Apache-2.0
// The kernels of gp for the instruction set that this file's name gives; see CMakeLists.txt.

#include "gp/gp_kernel.h"

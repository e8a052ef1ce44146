// SPDX-License-Identifier: Apache-2.0
// The training step for AVX-512.

#include "gin_train/step_kernel.h"

// SPDX-License-Identifier: Apache-2.0
// The training step for AVX2 and FMA.

#include "gin_train/step_kernel.h"

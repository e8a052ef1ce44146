// SPDX-License-Identifier: Apache-2.0
// The training step for any processor.

#include "gin_train/step_kernel.h"

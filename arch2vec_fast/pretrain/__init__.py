# SPDX-License-Identifier: Apache-2.0
"""Pretraining: the loop, its run directory, the objective and the quality measures."""

from arch2vec_fast.pretrain.loop import Interrupted, pretrain, train
from arch2vec_fast.pretrain.metrics import evaluate
from arch2vec_fast.pretrain.objective import objective
from arch2vec_fast.pretrain.run import Run

__all__ = ["Interrupted", "Run", "evaluate", "objective", "pretrain", "train"]

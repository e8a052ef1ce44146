# SPDX-License-Identifier: Apache-2.0
"""The DARTS networks of a genotype, and their training."""

from arch2vec_fast.darts.network import Logits, Network, draw_paths

__all__ = ["Logits", "Network", "draw_paths"]

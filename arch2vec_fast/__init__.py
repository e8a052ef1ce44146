# SPDX-License-Identifier: Apache-2.0
"""arch2vec, fast: embeddings of neural-network cells, learnt without accuracies.

The public names, nothing else. They are resolved on first use, so that `arch2vec_fast.spaces` works without
importing torch.
"""

__version__ = "0.1.0"

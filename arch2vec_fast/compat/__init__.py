# SPDX-License-Identifier: Apache-2.0
"""The released code's names, signatures and files: change the import, keep the script.

    from models.model import Model, VAEReconstructed_Loss       # before
    from arch2vec_fast.compat import Model, VAEReconstructed_Loss

Each docstring says which behaviours are **kept**, because published numbers rest on them, and which
are **fixed**, because the released code crashes or returns NaN. Nothing here needs CUDA; everything
runs where its inputs are.
"""

from arch2vec_fast.compat.accuracy import (
    get_accuracy,
    get_train_acc,
    get_val_acc,
    get_val_acc_vae,
)
from arch2vec_fast.compat.checkpoints import (
    ReleasedCheckpoint,
    load_checkpoint,
    save_checkpoint,
    save_checkpoint_vae,
)
from arch2vec_fast.compat.models import (
    GAE,
    GIN,
    GVAE,
    MLP,
    Decoder,
    Encoder,
    GraphConvolution,
    Model,
    VAEncoder,
    get_arch2vec_model,
)
from arch2vec_fast.compat.objectives import Reconstructed_Loss, VAEReconstructed_Loss, configs
from arch2vec_fast.compat.operations import (
    is_valid_darts,
    is_valid_nasbench201,
    load_json,
    one_hot_darts,
    to_operations_darts,
    to_ops_darts,
    to_ops_nasbench101,
    to_ops_nasbench201,
)
from arch2vec_fast.compat.preparation import (
    normalize_adj,
    preprocessing,
    stacked_mm,
    stacked_spmm,
)

__all__ = [
    "GAE",
    "GIN",
    "GVAE",
    "MLP",
    "Decoder",
    "Encoder",
    "GraphConvolution",
    "Model",
    "Reconstructed_Loss",
    "ReleasedCheckpoint",
    "VAEReconstructed_Loss",
    "VAEncoder",
    "configs",
    "get_accuracy",
    "get_arch2vec_model",
    "get_train_acc",
    "get_val_acc",
    "get_val_acc_vae",
    "is_valid_darts",
    "is_valid_nasbench201",
    "load_checkpoint",
    "load_json",
    "normalize_adj",
    "one_hot_darts",
    "preprocessing",
    "save_checkpoint",
    "save_checkpoint_vae",
    "stacked_mm",
    "stacked_spmm",
    "to_operations_darts",
    "to_ops_darts",
    "to_ops_nasbench101",
    "to_ops_nasbench201",
]

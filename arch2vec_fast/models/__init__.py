# SPDX-License-Identifier: Apache-2.0
"""Autoencoders of cells, their recipes and their latent priors."""

from arch2vec_fast.models.decoder import Decoded, Decoder
from arch2vec_fast.models.gin_vae import AutoencoderBase, GinVae, Reconstruction, build_model
from arch2vec_fast.models.prior import PRIORS, LatentPrior
from arch2vec_fast.models.recipes import Recipe

__all__ = [
    "PRIORS",
    "AutoencoderBase",
    "Decoded",
    "Decoder",
    "GinVae",
    "LatentPrior",
    "Recipe",
    "Reconstruction",
    "build_model",
]

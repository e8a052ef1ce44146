# SPDX-License-Identifier: Apache-2.0
"""Models of accuracy over embeddings, for Bayesian optimisation."""

from arch2vec_fast.surrogates.acquisition import (
    expected_improvement,
    log_expected_improvement,
    released_expected_improvement,
)
from arch2vec_fast.surrogates.bayesian_linear import BayesianLinearRegression
from arch2vec_fast.surrogates.dngo import DNGO, DngoRecipe, Proposal
from arch2vec_fast.surrogates.gp import GaussianProcess
from arch2vec_fast.surrogates.gp_observations import GpRecipe, GpSettings

__all__ = [
    "DNGO",
    "BayesianLinearRegression",
    "DngoRecipe",
    "GaussianProcess",
    "GpRecipe",
    "GpSettings",
    "Proposal",
    "expected_improvement",
    "log_expected_improvement",
    "released_expected_improvement",
]

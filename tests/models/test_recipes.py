# SPDX-License-Identifier: Apache-2.0
"""Recipes: presets, overrides, the trip through JSON, bad values."""

import json
from dataclasses import replace
from typing import Any

import pytest

from arch2vec_fast.models import Recipe


@pytest.mark.parametrize("name", Recipe.names())
@pytest.mark.parametrize("space", [None, "nasbench101", "nasbench201", "darts"])
def test_every_preset_survives_json(name: str, space: str | None) -> None:
    recipe = Recipe.get(name, space)
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_released_has_the_published_hyper_parameters() -> None:
    recipe = Recipe.released("nasbench101")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (8, 32, 1e-3)
    assert (recipe.hidden_dim, recipe.latent_dim, recipe.dropout) == (128, 16, 0.3)
    assert Recipe.released("nasbench201").epochs == Recipe.released("darts").epochs == 10


def test_rejects_unknown_preset() -> None:
    with pytest.raises(ValueError, match="recipe: no preset 'fast'; choose one of released"):
        Recipe.get("fast")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("direction", "sideways"),
        ("edge_loss", "logit"),
        ("prior", "uniform"),
        ("latent_dim", 0),
        ("batch_size", -1),
        ("epochs", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("dropout", 1.0),
        ("validation_fraction", 0.0),
        ("beta", -1.0),
    ],
)
def test_rejects_bad_values(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Recipe.released(), **{field: value})


def test_from_dict_rejects_unknown_and_missing_fields() -> None:
    values = Recipe.paper().to_dict()
    with pytest.raises(ValueError, match="unknown or missing fields colour"):
        Recipe.from_dict({**values, "colour": 1})
    values.pop("beta")
    with pytest.raises(ValueError, match="unknown or missing fields beta"):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("learning_rate", float("inf"), ValueError),
        ("learning_rate", 0.0, ValueError),
        ("beta", float("nan"), ValueError),
        ("beta", float("inf"), ValueError),
        ("beta", -1.0, ValueError),
        ("epochs", 1.5, TypeError),
        ("epochs", True, TypeError),
        ("hidden_dim", 2.5, TypeError),
        ("hidden_dim", 0, ValueError),
        ("variational", "no", TypeError),
        ("variational", 1, TypeError),
        ("dropout", 1.0, ValueError),
        ("validation_fraction", 0.0, ValueError),
        ("name", 3, TypeError),
    ],
)
def test_nonsense_names_its_field(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^recipe\.{field}: "):
        Recipe(**{"name": "mine", field: value})


def test_gates_need_the_encoder_that_has_them() -> None:
    with pytest.raises(ValueError, match=r'recipe\.direction: "gated" needs encoder "gin"'):
        Recipe(name="mine", encoder="gcn", direction="gated")

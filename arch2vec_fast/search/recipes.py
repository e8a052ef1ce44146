# SPDX-License-Identifier: Apache-2.0
"""Search recipes: every choice that changes a number of a search, as one frozen value.

As in pretraining, the released code departs from the paper in ways that move every curve, so each
departure is a field (`docs/semantics.md` has the evidence) and the presets `released`, `paper` and
`best` are three settings of one code path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

_PRESETS = ("released", "paper", "best")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecipe:
    """All choices of a search that are not the budget. Defaults are those of the paper.

    Bayesian optimisation
        num_initial: random queries before the first model.
        batch_size: cells a round; one where workers never wait for a round.
        surrogate: `dngo` (the paper's) or `gp` (exact Gaussian process, Weisfeiler-Lehman kernel).
        gp_targets: what the Gaussian process is fitted to; see `GpRecipe.targets`.
        distinct_queries: propose unvisited cells alone; released: its visited set never matches, so
            the same cells are queried again and again.
        standard_deviation: expected improvement takes the standard deviation; released: the
            predictive variance, which is nearly greedy.
        squared_residual, normalize_targets: of the evidence and targets of DNGO; see `DngoRecipe`.
        target: what must be improved upon; None: the best reward so far.
        released_draws: random numbers drawn as the released code draws them, from NumPy's and
            torch's global generators.
    REINFORCE
        policy_learning_rate, policy_hidden, episode_length: Adam on a one-layer LSTM, an update
            every `episode_length` cells.
        returns: `discounted` in reverse time with `discount`, or `rewards` as they came (what the
            released code does after computing the former).
        baseline: subtracted from returns; None: the episode's mean of them.
        normalize_advantages: divide them by the standard deviation of the episode's returns.
        whiten: turn the embeddings to zero mean and unit covariance first.
        action_origin: an action is a point of the latent space (`zero`), or a step from the best
            cell so far (`incumbent`), which is then the policy's state too.
        action_scale: standard deviation of actions.
        skip_nearest: never take the nearest neighbour, but the next; released on NAS-Bench-201.
        choice_learning_rate, baseline_momentum: of REINFORCE on the discrete encoding.
        shuffled_pool: with `released_draws`, the pool is shuffled before the start is drawn, and
            refits of DNGO take their seeds from NumPy's generator; released on NAS-Bench-201.
    Evolution
        population, tournament: cells alive, and cells drawn to find a parent.
    Supervised counterparts
        encoder_learning_rate: of Adam on the encoder that is learnt during the search.
        evaluate_in_train_mode: batch statistics at prediction, as the released baseline has.
        directed: the released baselines aggregate over A where arch2vec does over A + A^T.
        variance_bug: the acquisition of the released baseline, mean - (target / variance).
        frozen_policy_input: the released baseline shows the policy the initial graph for ever.
    """

    name: str
    num_initial: int = 16
    batch_size: int = 5
    surrogate: Literal["dngo", "gp"] = "dngo"
    gp_targets: Literal["rank", "clip", "standard", "none"] = "rank"
    distinct_queries: bool = True
    standard_deviation: bool = True
    squared_residual: bool = True
    normalize_targets: bool = True
    target: float | None = 0.95
    released_draws: bool = False
    policy_learning_rate: float = 1e-2
    policy_hidden: int = 128
    episode_length: int = 16
    returns: Literal["discounted", "rewards"] = "discounted"
    discount: float = 0.8
    baseline: float | None = 0.95
    normalize_advantages: bool = False
    whiten: bool = False
    action_origin: Literal["zero", "incumbent"] = "zero"
    action_scale: float = 1.0
    skip_nearest: bool = False
    shuffled_pool: bool = False
    choice_learning_rate: float = 0.1
    baseline_momentum: float = 0.9
    population: int = 100
    tournament: int = 10
    encoder_learning_rate: float = 1e-3
    evaluate_in_train_mode: bool = False
    directed: bool = False
    variance_bug: bool = False
    frozen_policy_input: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            choices = get_args(hint)
            if choices and isinstance(choices[0], str) and getattr(self, name) not in choices:
                raise ValueError(
                    f"recipe.{name}: unknown value {getattr(self, name)!r}; "
                    f"choose one of {', '.join(map(repr, choices))}"
                )
        counts = ("num_initial", "batch_size", "policy_hidden", "episode_length")
        for name in (*counts, "population", "tournament"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe.{name}: {getattr(self, name)} is below 1")
        if not self.policy_learning_rate > 0 or not 0 <= self.discount <= 1:
            raise ValueError(
                "recipe: policy_learning_rate must be positive, discount lie in [0, 1]"
            )

    @classmethod
    def paper(cls, space: str | None = None) -> SearchRecipe:
        """What the paper says (section 4.2 and appendix), baselines as in their benchmarks."""
        # These searches are a tenth as long as NAS-Bench-101's, and so is the population.
        if space in ("nasbench201", "darts"):
            return cls(name="paper", population=10, tournament=3)
        return cls(name="paper")

    @classmethod
    def released(cls, space: str | None = None) -> SearchRecipe:
        """What the authors' public code does, quirks included."""
        recipe = replace(
            cls.paper(space),
            name="released",
            distinct_queries=False,
            standard_deviation=False,
            squared_residual=False,
            normalize_targets=False,
            released_draws=True,
            returns="rewards",
            evaluate_in_train_mode=True,
            directed=True,
            variance_bug=True,
            frozen_policy_input=True,
        )
        if space != "nasbench201":
            return recipe
        return replace(
            recipe,
            batch_size=1,
            target=1.0,
            discount=0.4,
            baseline=0.4,
            skip_nearest=True,
            shuffled_pool=True,
        )

    @classmethod
    def best(cls, space: str | None = None) -> SearchRecipe:
        """The measured winner (`docs/results.md`).

        For REINFORCE it is the one that serves any embeddings. In those of `Recipe.released()`,
        whose extreme points are good cells, `replace(SearchRecipe.best(), whiten=False,
        action_origin="zero", action_scale=1.0)` finds more; in others that finds little.
        """
        return replace(
            cls.paper(space),
            name="best",
            surrogate="gp",
            # Ranks hide how far the best cells of NAS-Bench-101 stand above the crowd.
            gp_targets="clip" if space == "nasbench101" else "rank",
            target=None,
            returns="rewards",
            baseline=None,
            normalize_advantages=True,
            whiten=True,
            action_origin="incumbent",
            action_scale=0.7,
            choice_learning_rate=1.0,
        )

    @classmethod
    def get(cls, name: str, space: str | None = None) -> SearchRecipe:
        """The preset called `name` as meant for `space`.

        >>> SearchRecipe.get("released", "nasbench201").baseline
        0.4
        """
        if name not in _PRESETS:
            raise ValueError(f"recipe: no preset {name!r}; choose one of {', '.join(_PRESETS)}")
        preset: SearchRecipe = getattr(cls, name)(space)
        return preset

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names that `get` takes."""
        return _PRESETS

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchRecipe:
        """Inverse of `to_dict`; unknown or missing fields are an error, never a default."""
        known = {field.name for field in fields(cls)}
        if odd := sorted(known.symmetric_difference(values)):
            raise ValueError(f"recipe: unknown or missing fields {', '.join(odd)}")
        return cls(**values)

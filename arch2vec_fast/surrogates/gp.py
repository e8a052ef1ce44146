# SPDX-License-Identifier: Apache-2.0
"""Exact Gaussian processes over a fixed set of candidates, for S searches in lock-step.

The kernel is w * Matern-5/2 of embeddings + (1 - w) * normalised Weisfeiler-Lehman kernel of cells:
what the encoder has learnt, and which local structures two cells share. Rewards pass through a
transform first, because accuracies have a long tail of failures that says little about the best.

What grows with the Q candidates is kept between rounds: V = L^-1 K(M, Q), row by row, and the sum
of its squares, with L the Cholesky factor of K(M, M) + noise. A new observation adds one row to V;
new targets, all of which move when ranks do, change only mean = (L^-1 y)^T V, summed in the pass
over V that adds the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast._checks import check_device
from arch2vec_fast._checks_gp import LANES, GpCandidates, gp_candidates, squared_lengths
from arch2vec_fast._reference_dngo import Acquisition
from arch2vec_fast.spaces import WlHistogram
from arch2vec_fast.surrogates.dngo import Array, Proposal
from arch2vec_fast.surrogates.gp_observations import (
    GpRecipe,
    GpSettings,
    Gram,
    Observations,
    Vector,
)

_SHORTLIST = 256
_SPARE = 16  # rows of V, so that a round's points fit


class GaussianProcess:
    """The surrogate of the `best` search: `fit`, then `acquire` and `extend` in turn.

    S searches share Q candidates and nothing else: each observes rows of its own. Predictions are
    of the noise-free function, in the units of the transformed targets (`GpRecipe.targets`), and
    exact up to float32; a variance below 1e-6 of the signal's is taken for that.

    Args:
        features: [Q, D] of any floating type, e.g. `EmbeddingTable.vectors`, or None.
        histogram: `spaces.wl_histogram` of the same Q cells, or None; one of the two is needed.
        num_searches: S.
        recipe: `GpRecipe()` or your own.
        device: of candidates and posterior; what is M x M stays on the host. There is no CUDA
            kernel: on "cuda" the posterior takes a few plain PyTorch calls a search.
        engine: "native" (the kernels) or "eager" (plain PyTorch, the same model).

    Deterministic; a search's results do not depend on the others. Memory: S * M * Q floats. A
    round of B new points costs B * Q * (D + M) multiply-adds a search, and where the settings are
    chosen anew M * Q * (D + M / 2).

    Example:
        >>> import numpy as np
        >>> points = np.linspace(-2, 2, 101)[:, None]
        >>> reward = 1 - (points[:, 0] - 0.5) ** 2
        >>> rows = np.array([[0, 30, 50, 100]])
        >>> model = GaussianProcess(points).fit(rows, reward[rows])
        >>> for _ in range(4):
        ...     rows = model.acquire(2).indices
        ...     _ = model.extend(rows, reward[rows])
        >>> bool(reward[model.rows[0]].max() > 0.99)
        True
    """

    def __init__(
        self,
        features: Array | None = None,
        histogram: WlHistogram | None = None,
        *,
        num_searches: int = 1,
        recipe: GpRecipe | None = None,
        device: str | torch.device = "cpu",
        engine: str = "native",
    ) -> None:
        if engine not in ("native", "eager"):
            raise ValueError(f"engine: {engine!r} is not an engine; use native or eager")
        if num_searches < 1:
            raise ValueError(f"num_searches: {num_searches} is below 1")
        if recipe is not None and not isinstance(recipe, GpRecipe):
            raise TypeError(f"recipe: expected a GpRecipe, got {type(recipe).__name__}")
        self.device = check_device(device)
        native = engine == "native" and self.device.type == "cpu"
        self._functions = functional if native else reference
        scaled = _scaled(features, histogram)
        self.recipe = _reachable(recipe or GpRecipe(), scaled, histogram)
        self._candidates = _lay_out(scaled, histogram, self.device)
        self._gram = Gram(self._candidates.panels, histogram)
        self._searches = [Observations(self._gram, self.recipe) for _ in range(num_searches)]
        panels = len(self._candidates.panels)
        self._visited = torch.zeros(num_searches, len(scaled), dtype=torch.bool, device=self.device)
        self._explained = torch.zeros(num_searches, panels, LANES, device=self.device)
        self._mean = torch.zeros_like(self._explained)
        self._scale = torch.zeros(num_searches, device=self.device)
        self._solved = torch.empty(num_searches, panels, 0, LANES, device=self.device)

    @property
    def rows(self) -> list[list[int]]:
        """Candidates observed by each search, in order."""
        return [list(search.rows) for search in self._searches]

    @property
    def settings(self) -> list[GpSettings]:
        """The kernel of each search as it is now."""
        return [search.settings for search in self._searches]

    def fit(self, rows: Array, targets: Array) -> GaussianProcess:
        """Forgets all observations, then `extend`s."""
        self._searches = [Observations(self._gram, self.recipe) for _ in self._searches]
        self._visited.zero_()
        return self.extend(rows, targets)

    def extend(self, rows: Array, targets: Array) -> GaussianProcess:
        """Conditions on further observations; returns self.

        Args:
            rows: candidates observed, int [S, B]; -1 for none.
            targets: their rewards, to be maximised, [S, B]; NaN for none. A candidate may be
                observed several times.
        """
        where, rewards = self._observations(rows, targets)
        first = []
        for s, search in enumerate(self._searches):
            seen = (where[s] >= 0) & np.isfinite(rewards[s])
            fresh = where[s, seen].tolist()
            with _one_thread():
                first.append(search.observe(fresh, rewards[s, seen].tolist()))
            self._visited[s, fresh] = True
        self._solve(first)
        return self

    def predict(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of the noise-free function at all candidates, [S, Q]."""
        found = self._acquire(0, None, None, predictions=True)
        return found.mean.cpu().numpy(), found.variance.sqrt().cpu().numpy()

    def acquire(
        self, k: int = 5, visited: Array | None = None, incumbent: Array | float | None = None
    ) -> Proposal:
        """The `k` candidates of largest expected improvement, ties to the lowest row.

        Args:
            k: 0 .. 1024.
            visited: bool [Q] or [S, Q], candidates that are not to be proposed; default: those that
                the search has observed.
            incumbent: what must be improved upon, a number or one a search, in transformed units;
                default: the best transformed target.

        Returns:
            NumPy arrays `Proposal(indices [S, k], improvement [S, k])`, the improvement in
            transformed units; index -1 where no candidate is left.
        """
        found = self._acquire(k, visited, incumbent, predictions=False)
        return Proposal(found.indices.cpu().numpy(), found.scores.exp().cpu().numpy())

    def propose(
        self, k: int = 5, pending: Sequence[Sequence[int]] | None = None
    ) -> NDArray[np.int64]:
        """The next batch [S, k] of unobserved candidates, chosen one after the other.

        As `acquire`, but after each choice the variance is what it would be had that been observed:
        the candidates of a batch differ, where the k largest improvements are often one network
        written in k ways. Chosen among the 256 best of `acquire`; -1 where none is left.

        pending: candidates that each search chose before and has not observed yet. They are taken
        for chosen in this batch too, so none is proposed again.
        """
        pending = pending or [()] * len(self._searches)
        hidden = self._visited
        if any(pending):
            hidden = hidden.clone()
            for mask, chosen_before in zip(hidden, pending, strict=True):
                mask[list(chosen_before)] = True
        most = self._acquire(max(k, _SHORTLIST), hidden, None, predictions=False).indices.cpu()
        chosen = torch.full((len(self._searches), k), -1)
        for s, search in enumerate(self._searches):
            best = most[s][most[s] >= 0]
            count = min(k, len(best))
            if count:
                rows = torch.cat([best.new_tensor(list(pending[s])), best])
                lanes = self._solved[s, :, : len(search)][rows // LANES, :, rows % LANES]
                target = float(search.transformed().max())
                with _one_thread():
                    found = search.choose(
                        count, rows.tolist(), lanes.T.cpu(), target, len(pending[s])
                    )
                chosen[s, :count] = torch.tensor(found)
        return chosen.numpy()

    def _acquire(
        self, k: int, visited: Array | None, incumbent: Array | float | None, *, predictions: bool
    ) -> Acquisition:
        for s, search in enumerate(self._searches):
            if not len(search):
                raise ValueError(f"model: search {s} has no observations; call fit first")
        seeds = len(self._searches)
        if incumbent is None:
            target = torch.stack([search.transformed().max() for search in self._searches])
        else:
            target = torch.as_tensor(incumbent, dtype=torch.float64).expand(seeds)
        mask = self._visited
        if visited is not None:
            mask = torch.as_tensor(visited).to(self.device, torch.bool).expand_as(mask)
        found: Acquisition = self._functions.gp_acquire(
            self._mean,
            self._explained,
            self._scale,
            target.float().to(self.device),
            num_candidates=self._candidates.num_candidates,
            num_results=k,
            visited=mask,
            predictions=predictions,
        )
        return found

    def _solve(self, first: list[int]) -> None:
        """Brings V and the posterior up to date; `first`: the first row of each search to solve."""
        sizes = [len(search) for search in self._searches]
        most = max(sizes)
        self._reserve(most, first)
        rows = torch.full((len(sizes), most), -1)
        factor = torch.zeros(len(sizes), most, most)
        kernel = torch.empty(len(sizes), 2)
        coefficients = torch.zeros(len(sizes), most)
        for s, search in enumerate(self._searches):
            with _one_thread():
                coefficients[s, : sizes[s]], self._scale[s] = search.whitened()
            rows[s, : sizes[s]] = torch.tensor(search.rows, dtype=torch.int64)
            factor[s, : sizes[s], : sizes[s]] = search.factor
            kernel[s, 0], kernel[s, 1] = 1 / search.settings.length_scale, search.settings.weight
        self._functions.gp_extend(
            self._candidates,
            rows.to(self.device),
            torch.tensor(first).to(self.device),
            torch.tensor(sizes).to(self.device),
            factor.to(self.device),
            kernel.to(self.device),
            coefficients.to(self.device),
            self._solved,
            self._explained,
            self._mean,
        )

    def _reserve(self, count: int, first: list[int]) -> None:
        """Room for `count` rows of V; where none has to be kept, for all until the next refit.

        Memory that no row was written to is never touched.
        """
        anew = not any(first)
        wanted = math.ceil(self.recipe.refit_growth * count) + _SPARE if anew else count
        old = self._solved
        if wanted <= old.shape[2]:
            return
        if anew:
            self._solved = old = old.new_empty(0)  # gives the memory back first
        shape = (len(first), len(self._candidates.panels), max(wanted, count + _SPARE), LANES)
        self._solved = torch.empty(shape, device=self.device)
        for search, known, kept in zip(self._solved, first, old):
            search[:, :known] = kept[:, :known]

    def _observations(self, rows: Array, targets: Array) -> tuple[NDArray[np.int64], Vector]:
        where = torch.as_tensor(rows).cpu().numpy()
        rewards = torch.as_tensor(targets).cpu().double().numpy()
        if where.ndim != 2 or len(where) != len(self._searches) or where.dtype.kind != "i":
            raise ValueError(
                f"rows: expected integers [{len(self._searches)}, B], one line a search, got "
                f"{where.dtype} {list(where.shape)}"
            )
        if rewards.shape != where.shape:
            raise ValueError(f"targets: shape {list(rewards.shape)} for rows {list(where.shape)}")
        count = self._visited.shape[1]
        if where.size and not -1 <= where.min() <= where.max() < count:
            raise ValueError(f"rows: outside -1 .. Q - 1 = {count - 1}")
        if np.isinf(rewards).any():
            raise ValueError("targets: infinite; pass finite rewards, or NaN where there is none")
        return where.astype(np.int64), rewards


@contextmanager
def _one_thread() -> Iterator[None]:
    """For matrices of a few hundred rows, where threads wait longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scaled(features: Array | None, histogram: WlHistogram | None) -> Tensor:
    """Features [Q, D] on the host, centred, two candidates at a mean square distance of 1."""
    if features is None:
        if histogram is None:
            raise ValueError("features: none, and no histogram either; pass one of them")
        return torch.zeros(len(histogram), 0)
    values = torch.as_tensor(features).detach().cpu().float()
    if values.dim() != 2 or 0 in values.shape:
        raise ValueError(f"features: expected shape [Q, D], got {list(values.shape)}")
    if not all(bool(bound.isfinite()) for bound in values.aminmax()):
        raise ValueError("features: not all finite; leave out those candidates")
    if histogram is not None and len(histogram) != len(values):
        raise ValueError(f"histogram: of {len(histogram)} cells, but features of {len(values)}")
    values = values - values.mean(0)
    spread = float(2 * squared_lengths(values).mean())
    return values.div_(math.sqrt(spread)) if spread > 0 else values


def _reachable(recipe: GpRecipe, features: Tensor, histogram: WlHistogram | None) -> GpRecipe:
    """The grid without what makes no difference where one of the kernels is missing."""
    if not features.shape[1]:
        return replace(recipe, weights=(0.0,), length_scales=recipe.length_scales[:1])
    return recipe if histogram is not None else replace(recipe, weights=(1.0,))


def _lay_out(features: Tensor, histogram: WlHistogram | None, device: torch.device) -> GpCandidates:
    if histogram is None:
        return gp_candidates(features.to(device))
    parts = (histogram.starts, histogram.colours, histogram.normalized().astype(np.float32))
    return gp_candidates(
        features.to(device),
        *(torch.from_numpy(part).to(device) for part in parts),
        num_colours=histogram.num_colours,
    )

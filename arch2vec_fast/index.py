# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbours of points in the latent space, behind one protocol.

`build_index` chooses among three implementations that return the same bits: the package's own scan
(`NativeIndex`, CPU and CUDA), FAISS on the CPU and FAISS on a GPU. What was visited is kept apart
from the index, so that any number of searches share one: 500 REINFORCE runs in lock-step are 500
rows of one `VisitedSet`.

    index = build_index(table.vectors)
    visited = VisitedSet(len(index), rows=500)
    found = index.nearest(actions, visited=visited)      # actions [500, D]
    visited.visit(found.indices)
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arch2vec_fast import functional, reference
from arch2vec_fast._checks import check_device
from arch2vec_fast._latents import check_finite, check_latents, check_search, visited_words
from arch2vec_fast._memory import counted_memory

__all__ = [
    "FaissIndex",
    "LatentIndex",
    "NativeIndex",
    "Neighbours",
    "VisitedSet",
    "build_index",
]

Array = TypeVar("Array", Tensor, NDArray[Any])

_FAISS_GPU_LIMIT = 2048  # neighbours of one search there


class Neighbours(NamedTuple, Generic[Array]):
    """What a search found, in the kind of its queries: tensors on their device, or NumPy arrays.

    distances: float32 [M, K], squared, ascending. indices: int64 [M, K]. Where fewer than K points
    are left, infinity and -1.
    """

    distances: Array
    indices: Array


class LatentIndex(Protocol):
    """Q points of D dims that can be searched exactly."""

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the points lie and masks must lie."""
        ...

    def __len__(self) -> int:
        """Q."""
        ...

    def nearest(
        self, queries: Array, k: int = 1, *, visited: VisitedSet | None = None
    ) -> Neighbours[Array]:
        """The k nearest unvisited points of each query, as `functional.nearest_latent`.

        queries: floating [M, D], rounded to float32. visited: a set of one row, which holds for all
        queries, or of M rows. Ties go to the lowest index, whatever the implementation.
        """
        ...


class VisitedSet:
    """Which of Q points each of R searches has visited: one bit each.

    >>> visited = VisitedSet(100, rows=2)
    >>> visited.visit([3, 5])
    >>> visited.visit([[7, 8], [5, -1]])
    >>> visited.mask().nonzero().tolist()
    [[0, 3], [0, 7], [0, 8], [1, 5]]
    """

    def __init__(
        self, num_points: int, *, rows: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        if num_points < 0 or rows < 1:
            raise ValueError(
                f"rows: {rows} rows of {num_points} points; need 1 or more of 0 or more"
            )
        self.num_points = num_points
        self.words = torch.zeros(
            rows, visited_words(num_points), dtype=torch.int64, device=check_device(device)
        )

    def __len__(self) -> int:
        """R."""
        return len(self.words)

    def visit(self, indices: Tensor | ArrayLike) -> None:
        """Mark points: [R] or [R, n], row by row; of a set of one row also [n]. -1 marks nothing.

        Raises ValueError for another shape and IndexError for an index that is no point's.
        """
        marked = torch.as_tensor(indices, device=self.words.device)
        if not marked.numel():
            return
        if marked.dtype.is_floating_point or marked.dtype == torch.bool:
            raise TypeError(
                f"indices: expected integers, got {marked.dtype}; for a mask, nonzero()"
            )
        if marked.dim() not in (1, 2) or (len(marked) != len(self) and len(self) != 1):
            raise ValueError(
                f"indices: expected shape [{len(self)}] or [{len(self)}, n], "
                f"got {list(marked.shape)}"
            )
        marked = marked.long().reshape(len(self), -1)
        if marked.device.type == "cpu" and marked.numel():  # elsewhere looking would wait
            low, high = int(marked.min()), int(marked.max())
            if low < -1 or high >= self.num_points:
                bad = low if low < -1 else high
                raise IndexError(f"indices: {bad} is outside -1 .. {self.num_points - 1}")
        for column in marked.unbind(1):  # rarely more than one; two of a word must not meet
            word = column.clamp(min=0)[:, None] // 64
            bit = torch.where(column >= 0, 1, 0)[:, None] << column.clamp(min=0)[:, None] % 64
            self.words.scatter_(1, word, self.words.gather(1, word) | bit)

    def reset(self, rows: Tensor | ArrayLike | None = None) -> None:
        """Forget what these rows (default: all) have visited."""
        if rows is None:
            self.words.zero_()
        else:
            self.words[torch.as_tensor(rows, device=self.words.device)] = 0

    def mask(self) -> Tensor:
        """Bool [R, Q]."""
        octets = self.words.view(torch.uint8)[..., None]
        bits = octets >> torch.arange(8, dtype=torch.uint8, device=octets.device) & 1
        return bits.flatten(1)[:, : self.num_points].bool()


class NativeIndex:
    """The package's own exact scan: `functional.nearest_latent` over points packed once."""

    def __init__(self, points: Tensor | ArrayLike, *, device: str | torch.device = "cpu") -> None:
        self._packed = functional.pack_latents(_as_points(points, device))

    @property
    def dim(self) -> int:
        return self._packed.points.shape[1]

    @property
    def device(self) -> torch.device:
        return self._packed.points.device

    def __len__(self) -> int:
        return len(self._packed.points)

    def nearest(
        self, queries: Array, k: int = 1, *, visited: VisitedSet | None = None
    ) -> Neighbours[Array]:
        """See `LatentIndex.nearest`."""
        words = _words_of(visited, len(self))
        rows = _as_queries(queries, self.device)
        with counted_memory("queries", len(rows), 4 * self.dim + 12 * k, self.device):
            found = functional.nearest_latent(self._packed, rows, k, words)
        return _like(queries, found)


class FaissIndex:
    """A flat FAISS index whose answers are checked to be exact.

    FAISS rounds distances in another way and returns equal ones in any order. Therefore more
    neighbours than asked for are fetched, their distances computed as `functional.nearest_latent`
    defines them, and sorted with the lowest index first; where a point that was not fetched could
    still belong to the answer (within the rounding of FAISS, or because many points are equal),
    twice as many are fetched. On the CPU, FAISS skips visited points by its own selector. Its GPU
    index has none and returns at most 2,048: visited points are dropped afterwards. A query that
    this leaves open, or whose distances come near the largest float, is answered by
    `reference.nearest_latent`.

    device: "cpu" needs the package faiss-cpu, "cuda" faiss-gpu; the two exclude each other.
    """

    def __init__(self, points: Tensor | ArrayLike, *, device: str | torch.device = "cpu") -> None:
        faiss = _import_faiss("faiss-gpu" if str(device).startswith("cuda") else "faiss")
        self._points = _as_points(points, device)
        check_finite("points", self._points)
        rows = np.ascontiguousarray(self._points.cpu().numpy())
        self._limit = len(self)
        if self.device.type == "cuda":
            if not hasattr(faiss, "StandardGpuResources"):
                raise ValueError(
                    "device: this FAISS has no GPU code; replace faiss-cpu by faiss-gpu"
                )
            self._resources = faiss.StandardGpuResources()
            config = faiss.GpuIndexFlatConfig()
            config.device = self.device.index or 0
            self._index: Any = faiss.GpuIndexFlatL2(self._resources, self.dim, config)
            self._limit = min(self._limit, _FAISS_GPU_LIMIT)
        else:
            self._index = faiss.IndexFlatL2(self.dim)
        self._index.add(rows)
        self._largest = float(self._points.double().square().sum(1).max()) if len(self) else 0.0

    @property
    def dim(self) -> int:
        return self._points.shape[1]

    @property
    def device(self) -> torch.device:
        return self._points.device

    def __len__(self) -> int:
        return len(self._points)

    def nearest(
        self, queries: Array, k: int = 1, *, visited: VisitedSet | None = None
    ) -> Neighbours[Array]:
        """See `LatentIndex.nearest`."""
        wanted = _as_queries(queries, self.device)
        words = _words_of(visited, len(self))
        check_search(self._points, wanted, k, words)
        check_finite("queries", wanted)
        distances = wanted.new_full((len(wanted), k), torch.inf)
        indices = torch.full((len(wanted), k), -1, device=self.device)
        if words is None:
            self._search(wanted, k, None, distances, indices)
        elif len(words) == 1:
            self._search(wanted, k, words[0], distances, indices)
        else:  # one selector a call
            for row, mask in enumerate(words):
                own = slice(row, row + 1)
                self._search(wanted[own], k, mask, distances[own], indices[own])
        return _like(queries, (distances, indices))

    def _search(
        self, queries: Tensor, k: int, words: Tensor | None, distances: Tensor, indices: Tensor
    ) -> None:
        """Fill distances and indices [M, k], fetching more for the queries that stay open."""
        open_rows = torch.arange(len(queries) if len(self) else 0, device=self.device)
        fetch = k + 16
        while len(open_rows):
            fetch = min(fetch, self._limit)
            asked = queries[open_rows]
            rough, candidates = self._fetch(asked, fetch, words)
            found, chosen = self._exact(asked, candidates, k, words)
            distances[open_rows, : found.shape[1]] = found
            indices[open_rows, : chosen.shape[1]] = chosen
            done = self._settled(asked, rough, candidates, found, fetch)
            open_rows = open_rows[~done]
            if fetch == self._limit:
                break
            fetch *= 2
        if len(open_rows):  # the GPU index's limit, or distances near the largest float
            mask = None if words is None else words[None]
            rest = reference.nearest_latent(self._points, queries[open_rows], k, mask)
            distances[open_rows], indices[open_rows] = rest

    def _fetch(self, queries: Tensor, fetch: int, words: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances and indices [M, fetch] as FAISS has them; index -1 where it found no more."""
        rows = np.ascontiguousarray(queries.cpu().numpy())
        parameters = {}
        if words is not None and self.device.type == "cpu":
            faiss = _import_faiss()
            bits = words.numpy().view(np.uint8)
            visited = faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(bits))
            parameters["params"] = faiss.SearchParameters(sel=faiss.IDSelectorNot(visited))
        distances, indices = self._index.search(rows, fetch, **parameters)
        return (
            torch.from_numpy(distances).to(self.device),
            torch.from_numpy(indices).to(self.device),
        )

    def _exact(
        self, queries: Tensor, candidates: Tensor, k: int, words: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The k best candidates by (distance, index), distances as they are defined."""
        indices, _ = candidates.sort(1)
        rows = indices.clamp(min=0)
        distance = queries.new_zeros(indices.shape)
        for d in range(self.dim):
            difference = self._points[:, d][rows] - queries[:, d, None]
            distance = distance + difference * difference
        dropped = indices < 0
        if words is not None:
            dropped |= (words[rows // 64] >> rows % 64 & 1).bool()
        distance = distance.masked_fill(dropped, torch.nan)  # sorts behind infinity
        distance, order = distance.sort(dim=1, stable=True)
        missing = distance.isnan()
        indices = indices.gather(1, order).masked_fill(missing, -1)
        return distance.masked_fill(missing, torch.inf)[:, :k], indices[:, :k]

    def _settled(
        self,
        queries: Tensor,
        rough: Tensor,
        candidates: Tensor,
        found: Tensor,
        fetch: int,
    ) -> Tensor:
        """Whether no point that was not fetched can belong to the answer, for each query.

        Nothing was left to fetch, or what was not fetched is farther, by FAISS's reckoning, than
        the k-th best by more than rounding can explain: it may compute |x|^2 - 2xq + |q|^2. Where
        distances near the largest float, it finds nothing at all.
        """
        scale = (self._largest**0.5 + queries.double().square().sum(1).sqrt()).square()
        beyond = rough[:, -1].double() - (self.dim + 8) * 2.0**-22 * scale
        farther = found[:, -1].double() * (1 + 2.0**-20) < beyond
        everything = fetch == len(self)
        settled: Tensor = (scale < 1e37) & (farther | (candidates[:, -1] < 0) | everything)
        return settled


def build_index(
    points: Tensor | ArrayLike, *, engine: str = "auto", device: str | torch.device | None = None
) -> LatentIndex:
    """An exact index of points [Q, D].

    engine: "native", "faiss", or "auto": native, which was as fast as FAISS for one query of 15,625
    points and 4 to 28 times as fast in every other case measured, up to 600,000 points of 16 dims,
    1 and 16 queries, 1 and 2 threads (bench/ops/test_nearest_latent.py); FAISS is there to check it
    and for those who have their points in it anyway. device: default where the points are.

    Raises ValueError for an unknown engine or device, for points that hold a NaN or an infinity,
    and ImportError for FAISS where it is not installed.

    >>> index = build_index([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    >>> index.nearest(np.array([[3.0, 3.0]]), k=2).indices.tolist()
    [[1, 2]]
    """
    if device is None:
        device = points.device if isinstance(points, Tensor) else "cpu"
    if engine in ("auto", "native"):
        return NativeIndex(points, device=device)
    if engine == "faiss":
        return FaissIndex(points, device=device)
    raise ValueError(f"engine: unknown {engine!r}; choose one of auto, native, faiss")


def _words_of(visited: VisitedSet | None, num_points: int) -> Tensor | None:
    if visited is None:
        return None
    if not isinstance(visited, VisitedSet):
        got = type(visited).__name__
        raise TypeError(f"visited: expected a VisitedSet, got {got}; visit() the points of a mask")
    if visited.num_points != num_points:
        raise ValueError(
            f"visited: is a set of {visited.num_points} points, but the index has {num_points}"
        )
    return visited.words


def _as_points(points: Tensor | ArrayLike, device: str | torch.device) -> Tensor:
    rows = _as_float("points", points).to(check_device(device)).contiguous()
    check_latents(rows)
    return rows


def _as_queries(queries: Tensor | NDArray[Any], device: torch.device) -> Tensor:
    rows = _as_float("queries", queries)
    if isinstance(queries, Tensor) and rows.device != device:
        raise ValueError(
            f"queries: on {rows.device}, but the index on {device}; move them with .to()"
        )
    return rows.to(device)


def _as_float(name: str, rows: Tensor | ArrayLike) -> Tensor:
    tensor = rows.detach() if isinstance(rows, Tensor) else torch.as_tensor(np.asarray(rows))
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name}: expected floating-point numbers, got {tensor.dtype}")
    return tensor.float()


def _like(queries: Array, found: tuple[Tensor, Tensor]) -> Neighbours[Array]:
    if isinstance(queries, Tensor):
        return cast("Neighbours[Array]", Neighbours(*found))
    distances, indices = (part.cpu().numpy() for part in found)
    return cast("Neighbours[Array]", Neighbours(distances, indices))


def _import_faiss(extra: str = "faiss") -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"faiss: not installed; pip install 'arch2vec-fast[{extra}]', or use engine='native'"
        ) from error
    return faiss

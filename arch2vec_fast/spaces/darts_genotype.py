# SPDX-License-Identifier: Apache-2.0
"""The genotype of a DARTS cell: the value, its two textual forms, and arrays of many genotypes.

A normal or reduction cell has two inputs (0 = c_{k-2}, 1 = c_{k-1}) and four nodes 2..5. Each
node adds two operations, each applied to one of two distinct earlier inputs; the cell returns
nodes 2..5 concatenated. The text ``Genotype(normal=[('sep_conv_3x3', 1), ...],
normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))`` is what DARTS prints and
pastes into Python; here it is parsed as data and never evaluated.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

OPERATIONS: Final = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NUM_NODES: Final = 4
NUM_EDGES: Final = 8
CONCAT: Final = (2, 3, 4, 5)

Edge = tuple[str, int]


def check_edges(name: str, edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Return ``edges`` as a checked tuple: two (operation, input) pairs for each of the nodes 2..5.

    Raises
    ------
    ValueError
        Not eight pairs, an unknown operation, an input that is not an earlier one, or a node that
        reads the same input twice.
    TypeError
        An entry that is not an (operation name, input number) pair.
    """
    if len(edges) != NUM_EDGES:
        raise ValueError(
            f"{name}: {len(edges)} (operation, input) pairs; "
            f"give {NUM_EDGES}, two for each of the nodes 2..5"
        )
    checked: list[Edge] = []
    for position, edge in enumerate(edges):
        where = f"{name}[{position}]"
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise TypeError(f"{where}: {edge!r} is no pair; write ('sep_conv_3x3', 0)")
        op, source = edge
        if (
            not isinstance(op, str)
            or isinstance(source, bool)
            or not isinstance(source, (int, np.integer))
        ):
            raise TypeError(
                f"{where}: {edge!r} is not (operation name, input number); "
                "write ('sep_conv_3x3', 0)"
            )
        if op not in OPERATIONS:
            raise ValueError(
                f"{where}: unknown operation {op!r}; choose one of {', '.join(OPERATIONS)}"
            )
        node = 2 + position // 2
        if not 0 <= source < node:
            raise ValueError(
                f"{where}: node {node} cannot read {source}; give an earlier input, 0..{node - 1}"
            )
        if position % 2 == 1 and source == checked[-1][1]:
            raise ValueError(
                f"{where}: node {node} reads input {source} twice; give two distinct inputs"
            )
        checked.append((op, int(source)))
    return tuple(checked)


@dataclass(frozen=True, slots=True)
class Genotype:
    """A DARTS architecture: normal cell and reduction cell (left out: the same, as in arch2vec).

    Parameters
    ----------
    normal
        Eight (operation, input) pairs, two for each of the nodes 2..5.
    reduce
        The same for the cells that halve the resolution.

    Raises
    ------
    ValueError, TypeError
        Not a cell of this space: see ``check_edges``. Both cells return nodes 2..5, there is no
        choice.

    Examples
    --------
    >>> genotype = Genotype.from_items(
    ...     "0:sep_conv_3x3|1:skip_connect|0:none|2:max_pool_3x3"
    ...     "|0:sep_conv_5x5|1:dil_conv_3x3|3:skip_connect|4:avg_pool_3x3"
    ... )
    >>> genotype.normal[3], genotype.reduce == genotype.normal
    (('max_pool_3x3', 2), True)
    >>> Genotype.parse(str(genotype)) == genotype
    True
    """

    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", check_edges("normal", self.normal))
        reduce = check_edges("reduce", self.reduce) if len(self.reduce) else self.normal
        object.__setattr__(self, "reduce", reduce)

    @property
    def normal_concat(self) -> tuple[int, ...]:
        """Nodes whose outputs are concatenated, (2, 3, 4, 5)."""
        return CONCAT

    @property
    def reduce_concat(self) -> tuple[int, ...]:
        """Nodes whose outputs are concatenated, (2, 3, 4, 5)."""
        return CONCAT

    def __str__(self) -> str:
        normal, reduce = list(self.normal), list(self.reduce)
        return (
            f"Genotype(normal={normal}, normal_concat=range(2, 6), "
            f"reduce={reduce}, reduce_concat=range(2, 6))"
        )

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Read the text that DARTS code prints, without evaluating it.

        Accepts keyword or positional arguments, lists or tuples, concat as ``range(2, 6)`` or
        ``[2, 3, 4, 5]``. A missing ``reduce`` means the normal cell. Raises ValueError for any
        other text and for a cell outside this space.
        """
        fields = _call_fields(text)
        for name in ("normal_concat", "reduce_concat"):
            concat = fields.get(name, CONCAT)
            if not isinstance(concat, tuple) or sorted(concat, key=str) != list(CONCAT):
                raise ValueError(
                    f"{name}: {concat!r}; this space concatenates nodes 2..5: range(2, 6)"
                )
        if "normal" not in fields:
            raise ValueError(
                "genotype: no `normal` cell; write Genotype(normal=[('sep_conv_3x3', 1), ...], ...)"
            )
        normal, reduce = (_as_sequence(name, fields.get(name, ())) for name in ("normal", "reduce"))
        if "reduce" in fields and not reduce:
            raise ValueError(
                "reduce: no (operation, input) pairs; give 8, or leave it out for the normal cell"
            )
        try:
            return cls(normal, reduce)
        except TypeError as error:  # a text is a value: its mistakes are ValueErrors
            raise ValueError(str(error)) from None

    @classmethod
    def from_items(cls, normal: str, reduce: str | None = None) -> Genotype:
        """Read ``input:operation|...`` texts, one a cell (``reduce`` left out: the normal cell).

        Raises ValueError for any other text and for a cell outside this space.
        """
        edges = _parse_items("normal", normal)
        return cls(edges) if reduce is None else cls(edges, _parse_items("reduce", reduce))

    def to_items(self) -> tuple[str, str]:
        """The normal and the reduction cell as ``input:operation|...``."""
        return _format_items(self.normal), _format_items(self.reduce)


def _parse_items(name: str, text: str) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    for position, item in enumerate(text.strip().split("|")):
        source, colon, op = item.strip().partition(":")
        if not colon or not (source.isascii() and source.isdecimal()):
            raise ValueError(
                f"{name}[{position}]: {item!r} is not input:operation; "
                "write 0:sep_conv_3x3|1:none|..."
            )
        edges.append(
            (op, int(source[:4]))
        )  # more digits are out of range anyhow; never parse a huge number
    return check_edges(name, edges)


def _format_items(edges: Sequence[Edge]) -> str:
    return "|".join(f"{source}:{op}" for op, source in edges)


def _as_sequence(name: str, value: object) -> tuple[Edge, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"{name}: {value!r}; give a list of 8 (operation, input) pairs")
    return value


def _call_fields(text: str) -> dict[str, object]:
    """The arguments of ``Genotype(...)`` by name, lists turned into tuples."""
    shape = (
        "genotype: not the text of a genotype; "
        "write Genotype(normal=[('sep_conv_3x3', 1), ...], ...)"
    )
    if len(text) > 10_000:
        raise ValueError(f"{shape} (this one has {len(text)} characters)")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(shape) from None
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or call.func.id != "Genotype"
    ):
        raise ValueError(shape)
    names = ("normal", "normal_concat", "reduce", "reduce_concat")
    if len(call.args) > len(names):
        raise ValueError(f"genotype: {len(call.args)} arguments; give {', '.join(names)}")
    fields = {name: _literal(name, node) for name, node in zip(names, call.args, strict=False)}
    for keyword in call.keywords:
        if keyword.arg not in names:
            raise ValueError(
                f"genotype: unknown field {keyword.arg!r}; the fields are {', '.join(names)}"
            )
        if keyword.arg in fields:
            raise ValueError(f"genotype: {keyword.arg} is given twice; give it once")
        fields[keyword.arg] = _literal(keyword.arg, keyword.value)
    return fields


def _literal(name: str, node: ast.expr) -> object:
    if isinstance(node, ast.Call):
        is_range = isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords
        bounds = [_literal(name, argument) for argument in node.args] if is_range else []
        if len(bounds) == 2 and all(isinstance(b, int) and 0 <= b <= 16 for b in bounds):
            return tuple(range(*bounds))  # type: ignore[call-overload]
        raise ValueError(f"{name}: only range(2, 6) or a list may stand here")
    try:
        return _frozen(ast.literal_eval(node))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"{name}: not a literal list of ('operation', input) pairs") from None


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def genotypes_to_edges(
    genotypes: Sequence[Genotype], *, reduce: bool = False
) -> npt.NDArray[np.uint8]:
    """Edges uint8 [B, 8, 2] = (input 0..4, operation 0..7) of the normal (or reduction) cells.

    Operations are numbered as in ``OPERATIONS``.
    """
    number = {op: index for index, op in enumerate(OPERATIONS)}
    cells = [genotype.reduce if reduce else genotype.normal for genotype in genotypes]
    edges = [[(source, number[op]) for op, source in cell] for cell in cells]
    return np.array(edges, dtype=np.uint8).reshape(len(cells), NUM_EDGES, 2)


def edges_to_genotypes(edges: npt.NDArray[np.uint8]) -> list[Genotype]:
    """Inverse of `genotypes_to_edges`, with reduction cell = normal cell."""
    return [
        Genotype(tuple((OPERATIONS[op], source) for source, op in cell)) for cell in edges.tolist()
    ]

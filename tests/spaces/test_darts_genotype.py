# SPDX-License-Identifier: Apache-2.0
"""The genotype of a DARTS cell: checks, both textual forms, arrays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch2vec_fast.spaces.darts_genotype import (
    OPERATIONS,
    Genotype,
    edges_to_genotypes,
    genotypes_to_edges,
)

GOOD = [
    ("sep_conv_3x3", 0),
    ("dil_conv_5x5", 1),
    ("none", 2),
    ("max_pool_3x3", 0),
    ("avg_pool_3x3", 1),
    ("skip_connect", 3),
    ("sep_conv_5x5", 4),
    ("dil_conv_3x3", 2),
]


@st.composite
def cells(draw: st.DrawFn) -> tuple[tuple[str, int], ...]:
    edges: list[tuple[str, int]] = []
    for node in range(2, 6):
        sources = draw(st.permutations(range(node)))[:2]
        edges += [(draw(st.sampled_from(OPERATIONS)), source) for source in sources]
    return tuple(edges)


genotypes = st.builds(Genotype, cells(), cells())


@given(genotypes)
def test_text_round_trip(genotype: Genotype) -> None:
    assert Genotype.parse(str(genotype)) == genotype
    assert Genotype.parse(repr(genotype)) == genotype
    assert Genotype.parse(str(genotype).replace("range(2, 6)", "[2, 3, 4, 5]")) == genotype


@given(genotypes)
def test_items_round_trip(genotype: Genotype) -> None:
    assert Genotype.from_items(*genotype.to_items()) == genotype


@given(st.lists(cells(), max_size=5))
def test_array_round_trip(batch: list[tuple[tuple[str, int], ...]]) -> None:
    made = [Genotype(cell) for cell in batch]
    edges = genotypes_to_edges(made)
    assert edges.shape == (len(batch), 8, 2)
    assert edges_to_genotypes(edges) == made
    assert (genotypes_to_edges(made, reduce=True) == edges).all()


def test_reads_what_darts_code_prints() -> None:
    cells = f"normal={GOOD}, normal_concat=range(2, 6), reduce={GOOD}, reduce_concat=[2, 3, 4, 5]"
    text = f"  Genotype({cells})\n"
    genotype = Genotype.parse(text)
    assert genotype.normal == tuple(GOOD)
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)
    assert Genotype.parse(f"Genotype({GOOD}, range(2, 6), {GOOD}, range(2, 6))") == genotype
    assert Genotype.parse(f"Genotype(normal={GOOD})") == genotype


@pytest.mark.parametrize(
    "text",
    [
        "",
        "genotype",
        "Genotype",
        "Genotype(",
        "Other(normal=[])",
        "__import__('os').system('true')",
        "(lambda: 0)()",
        "[" * 5_000,
        "Genotype(" + "9" * 20_000 + ")",
        "Genotype(normal=\0)",
    ],
)
def test_rejects_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="not the text of a genotype; write Genotype"):
        Genotype.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype()", "no `normal` cell"),
        ("Genotype(normal=8)", "normal: 8; give a list"),
        ("Genotype(normal=open('x'))", "normal: only range"),
        ("Genotype(normal=[x for x in y])", "normal: not a literal"),
        ("Genotype(normal=range(2, 99999999999))", "normal: only range"),
        ("Genotype(normal=[('none', 0)])", "normal: 1 .* pairs; give 8"),
        (f"Genotype(normal={GOOD}, reduce=[])", "reduce: no .* pairs; give 8"),
        (f"Genotype(normal={GOOD}, reduce=[3] + {GOOD})", "reduce: not a literal"),
        (f"Genotype(normal={[3, *GOOD[1:]]})", r"normal\[0\]: 3 is no pair"),
        (f"Genotype(normal={GOOD}, normal_concat=[2, 3, 4])", "normal_concat: .* nodes 2..5"),
        (f"Genotype(normal={GOOD}, normal_concat=['a', 1])", "normal_concat: .* nodes 2..5"),
        (f"Genotype(normal={GOOD}, reduce_concat=range(2, 7))", "reduce_concat: .* nodes 2..5"),
        (f"Genotype(normal={GOOD}, cells=3)", "unknown field 'cells'"),
        (f"Genotype({GOOD}, normal={GOOD})", "normal is given twice"),
        (f"Genotype({GOOD}, 1, 2, 3, 4)", "5 arguments"),
        (f"Genotype(**{{'normal': {GOOD}}})", "unknown field None"),
    ],
)
def test_rejects_malformed_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genotype.parse(text)


def with_edge(position: int, edge: object) -> list[object]:
    return [*GOOD[:position], edge, *GOOD[position + 1 :]]


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        (GOOD[:7], ValueError, "normal: 7 .* pairs; give 8"),
        (with_edge(0, ("conv", 0)), ValueError, r"normal\[0\]: unknown operation 'conv'; choose"),
        (with_edge(2, ("none", 3)), ValueError, r"normal\[2\]: node 3 cannot read 3; .* 0..2"),
        (with_edge(2, ("none", -1)), ValueError, "node 3 cannot read -1"),
        (with_edge(3, ("none", 2)), ValueError, "node 3 reads input 2 twice; give two distinct"),
        (with_edge(4, ("none", True)), TypeError, r"normal\[4\]: .* is not \(operation name"),
        (with_edge(4, (1, "none")), TypeError, r"normal\[4\]: .* is not \(operation name"),
        (with_edge(4, "none"), TypeError, r"normal\[4\]: 'none' is no pair"),
    ],
)
def test_rejects_cells_outside_the_space(
    edges: list[object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Genotype(edges)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"normal\[0\]: '' is not input:operation"),
        ("sep_conv_3x3", r"normal\[0\]: 'sep_conv_3x3' is not input:operation"),
        ("0:none|x:none", r"normal\[1\]: 'x:none' is not input:operation"),
        ("0:none|1:none", "normal: 2 .* pairs; give 8"),
        ("|".join(["0:none"] * 8), "node 2 reads input 0 twice"),
        ("|".join(["9" * 9_000 + ":none"] * 8), "node 2 cannot read 9999"),
    ],
)
def test_rejects_malformed_items(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genotype.from_items(text)

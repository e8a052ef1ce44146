# SPDX-License-Identifier: Apache-2.0
"""`arch2vec-fast spaces`: which cell spaces there are and what their cells look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from arch2vec_fast.cli.console import people, write_document

if TYPE_CHECKING:
    from arch2vec_fast.spaces import CellSpace


def spaces_command(name: str | None, *, as_json: bool) -> None:
    """Describe one space or list all."""
    from arch2vec_fast import spaces

    if name is not None:
        facts = describe_space(spaces.get(name), example=True)
        if as_json:
            write_document(facts)
        else:
            _print_one(facts)
        return
    rows = [describe_space(spaces.get(known), example=False) for known in spaces.names()]
    if as_json:
        write_document({"spaces": rows})
        return
    table = Table()
    for header in ("space", "size", "nodes", "operations", "max edges", "bits"):
        table.add_column(header, justify="left" if header == "space" else "right")
    for row in rows:
        nodes = f"2-{row['num_nodes']}" if row["variable_size"] else str(row["num_nodes"])
        table.add_row(
            row["name"],
            _count(row),
            nodes,
            str(len(row["op_names"])),
            str(row["max_edges"]),
            str(row["bits"]),
        )
    people().print(table)


def describe_space(space: CellSpace, *, example: bool) -> dict[str, Any]:
    """Facts about a space; `example` adds a sampled cell."""
    facts: dict[str, Any] = {
        "name": space.name,
        "num_cells": space.num_cells,
        "num_genotypes": space.num_genotypes,
        "num_nodes": space.layout.num_nodes,
        "op_names": list(space.op_names),
        "max_edges": space.max_edges,
        "variable_size": space.variable_size,
        "bits": space.layout.num_bits,
        "words": space.layout.words,
        "reasons": list(space.reasons),
    }
    if example:
        cell = space.sample(1, seed=0)
        adjacency, node_ops = cell.to_dense()
        facts["example"] = {
            "description": space.describe(cell),
            "adjacency": adjacency[0].tolist(),
            "node_ops": node_ops[0].tolist(),
        }
    return facts


def _count(facts: dict[str, Any]) -> str:
    if facts["num_cells"] is not None:
        return f"{facts['num_cells']:,} cells"
    if facts["num_genotypes"] is not None:
        return f"{facts['num_genotypes']:,} genotypes"
    return "unknown"


def _print_one(facts: dict[str, Any]) -> None:
    console = people()
    console.print(f"[bold]{facts['name']}[/]: {_count(facts)}")
    rows = {
        "nodes": f"{'up to ' if facts['variable_size'] else ''}{facts['num_nodes']}",
        "edges": f"at most {facts['max_edges']}",
        "operations": ", ".join(facts["op_names"]),
        "packed": f"{facts['bits']} bits in {facts['words']} x 64",
        "example": facts["example"]["description"],
    }
    for label, value in rows.items():
        console.print(f"  {label:<11}{escape(value)}", soft_wrap=True)

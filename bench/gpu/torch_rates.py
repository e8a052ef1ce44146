# SPDX-License-Identifier: Apache-2.0
"""What torch reaches on this GPU: matrix products by precision, copies, the cost of a call."""

from __future__ import annotations

import torch

from bench.gpu.report import Report, graphed


def run(report: Report) -> None:
    """Rates on random data; the ceiling that other rows are compared with."""
    torch.manual_seed(0)
    size = 8192
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        work = {"torch": lambda a=a, b=b, out=out: torch.mm(a, b, out=out)}
        report.race(f"matrix product {size}^3, {name}", work, flops=2.0 * size**3)
    torch.backends.cuda.matmul.allow_tf32 = False

    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copied = 2.0 * source.numel() * source.element_size()
    report.race("copy of 1 GB", {"torch": lambda: target.copy_(source)}, moved=copied)

    few = torch.randn(1024, device="cuda")
    report.race("add of 1,024 numbers", {"torch": lambda: few.add_(1.0)})
    chain = graphed(lambda: few.add_(1.0), steps=256)
    report.race("add of 1,024 numbers, 256 times in a graph", {"torch": chain})

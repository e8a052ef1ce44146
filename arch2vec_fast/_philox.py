# SPDX-License-Identifier: Apache-2.0
"""Counter-based random numbers in plain torch integers: the twin of csrc/common/philox.h.

Same bits as the kernels draw, on any device. Element e of a step is lane e % 4 of block e // 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOISE, DROPOUT = 0, 1  # streams
_WORD = 0xFFFFFFFF


def philox(seed: int, step: int, stream: int, blocks: Tensor) -> Tensor:
    """Philox4x32-10 words, int64 [n, 4] of values below 2^32, for blocks int64 [n]."""
    c = [blocks & _WORD, *(torch.full_like(blocks, word) for word in _counter(step, stream))]
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c[0])
        high1, low1 = _multiply(0xCD9E8D57, c[2])
        c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return torch.stack(c, 1)


def normals(seed: int, step: int, count: int, device: torch.device | str | None = None) -> Tensor:
    """The standard normals of elements 0 .. count - 1 of a step, float32 [count]."""
    words = philox(seed, step, NOISE, torch.arange(-(-count // 4), device=device))
    pairs = []
    for first, second in ((0, 1), (2, 3)):
        u = ((words[:, first] >> 9).float() + 0.5) * 2.0**-23
        # Through float64, because torch's float32 root is not always the nearest.
        radius = torch.sqrt((-2.0 * _log(u)).double()).float()
        cosine, sine = _circle(words[:, second])
        pairs += [radius * cosine, radius * sine]
    return torch.stack(pairs, 1).flatten()[:count]


def keep_mask(
    seed: int, step: int, count: int, rate: float, device: torch.device | str | None = None
) -> Tensor:
    """Which elements a dropout of `rate` keeps, bool [count]."""
    words = philox(seed, step, DROPOUT, torch.arange(-(-count // 4), device=device))
    # The kernels hold the rate in float32.
    threshold = int(float(torch.tensor(rate, dtype=torch.float32)) * 2**32)
    return (words >= threshold).flatten()[:count]


def _counter(step: int, stream: int) -> tuple[int, int, int]:
    return step & _WORD, (step >> 32) & _WORD, stream


def _multiply(factor: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a 64-bit product; it wraps into the sign, which the mask takes off."""
    product = value * (factor - 2**32 if factor >= 2**31 else factor)
    # factor - 2^32 changes the high word by `value`, to be added again.
    high = (product >> 32) + (value if factor >= 2**31 else 0)
    return high & _WORD, product & _WORD


def _log(x: Tensor) -> Tensor:
    bits = x.view(torch.int32)
    exponent = (bits >> 23) - 126
    m = ((bits & 0x007FFFFF) | 0x3F000000).view(torch.float32)
    small = m < torch.tensor(0.70710678, dtype=torch.float32, device=x.device)
    m, exponent = torch.where(small, m + m, m), exponent - small.int()
    f = m - 1.0
    z = f * f
    p = torch.full_like(f, 7.0376836292e-2)
    for coefficient in (
        *(-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
        *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    ):
        p = p * f + coefficient
    e = exponent.float()
    y = (p * f) * z
    y = y + e * -2.12194440e-4
    y = y + z * -0.5
    return (f + y) + e * 0.693359375


def _circle(word: Tensor) -> tuple[Tensor, Tensor]:
    quadrant = word >> 30
    within = ((word & 0x3FFFFFFF) >> 7).float()
    t = (within + 0.5) * 2.0**-23 - 0.5
    a = t * 1.57079632679
    z = a * a
    s = z * -1.9515295891e-4 + 8.3321608736e-3
    s = s * z + -1.6666654611e-1
    s = (s * z) * a + a
    c = z * 2.443315711809948e-5 + -1.388731625493765e-3
    c = c * z + 4.166664568298827e-2
    c = ((c * z) * z + z * -0.5) + 1.0
    odd = (quadrant & 1) != 0
    cosine, sine = torch.where(odd, s, c), torch.where(odd, c, s)
    turned = (quadrant == 1) | (quadrant == 2)
    return torch.where(turned, -cosine, cosine), torch.where(quadrant >= 2, -sine, sine)

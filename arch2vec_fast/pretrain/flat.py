# SPDX-License-Identifier: Apache-2.0
"""Adam over all parameters at once, kept in one flat buffer.

The released step spends a fifth of its time on Adam's bookkeeping for 39 small tensors. Adam works
element by element, so one tensor that holds all parameters gives the same bits for a fraction of
the calls. The parameters of the model become views of the buffer, so its state dict stays live;
files hold one entry a parameter, as `torch.optim.Adam` over the model's parameters writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FlatAdam:
    """`torch.optim.Adam(parameters, lr)` with gradient-norm clipping; equal to both to the bit.

    fused: let torch use its fused kernel, which is faster but rounds differently.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, fused: bool) -> None:
        self._parameters = list(parameters)
        self._sizes = [parameter.numel() for parameter in self._parameters]
        with torch.no_grad():
            flat = torch.cat([parameter.flatten() for parameter in self._parameters])
        self._flat = nn.Parameter(flat)
        self._flat.grad = torch.zeros_like(flat)
        self._gradients = self._views(self._flat.grad)
        for parameter, values, gradient in zip(
            self._parameters, self._views(flat), self._gradients
        ):
            parameter.data, parameter.grad = values, gradient
        self._adam = torch.optim.Adam([self._flat], lr=lr, foreach=False, fused=fused)

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split(self._sizes)
        return [part.view(like.shape) for part, like in zip(parts, self._parameters)]

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self._adam.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self._adam.param_groups[0]["lr"] = value

    @property
    def values(self) -> Tensor:
        """All parameters [P], those of the model being views of it; detached."""
        return self._flat.data

    @property
    def gradient(self) -> Tensor:
        """All gradients [P], which `step` reads; those of the parameters are views of it."""
        assert self._flat.grad is not None
        return self._flat.grad

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.gradient.zero_()

    def step(self, grad_clip: float) -> None:
        """Scale the gradients to a norm of at most `grad_clip`, then take one step.

        The norm is the norm of the parameters' norms, as `torch.nn.utils.clip_grad_norm_` has it.
        """
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._gradients, 2.0)), 2.0)
        self.gradient.mul_(torch.clamp(grad_clip / (norm + 1e-6), max=1.0))
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """The state dict of a `torch.optim.Adam` over the parameters one by one."""
        state = self._adam.state_dict()
        return split_state(state["state"].get(0, {}), state["param_groups"][0], self._parameters)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; raises ValueError for the state of other parameters."""
        joined = join_state(state, self._parameters)
        group = {**self._adam.state_dict()["param_groups"][0], "lr": state["param_groups"][0]["lr"]}
        self._adam.load_state_dict(
            {"state": {0: joined} if joined else {}, "param_groups": [group]}
        )


def split_state(
    flat: dict[str, Tensor], group: dict[str, Any], parameters: Sequence[Tensor]
) -> dict[str, Any]:
    """The state dict of Adam over `parameters` from that over all of them in one tensor.

    flat: "step" and two flat tensors, or nothing before the first step. group: Adam's settings.
    """
    entries: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(parameters))}
    for name, value in flat.items():
        if name == "step":
            parts = [value] * len(entries)
        else:
            split = value.split([parameter.numel() for parameter in parameters])
            parts = [part.view(like.shape) for part, like in zip(split, parameters)]
        for index, part in enumerate(parts):
            entries[index][name] = part.clone()
    return {
        "state": {index: entry for index, entry in entries.items() if entry},
        "param_groups": [{**group, "params": list(entries)}],
    }


def join_state(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Inverse of `split_state`, without the group; ValueError for the state of others."""
    entries = [state["state"].get(index, {}) for index in range(len(parameters))]
    fits = len(state["param_groups"][0]["params"]) == len(entries) and all(
        entry["exp_avg"].numel() == parameter.numel()
        for entry, parameter in zip(entries, parameters)
        if entry
    )
    if not fits:
        raise ValueError("optimizer_state: is of another model's parameters")
    if not entries[0]:
        return {}
    moments = ("exp_avg", "exp_avg_sq")
    joined = {name: torch.cat([entry[name].flatten() for entry in entries]) for name in moments}
    return {"step": entries[0]["step"], **joined}

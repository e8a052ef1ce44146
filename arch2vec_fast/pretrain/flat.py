# SPDX-License-Identifier: Apache-2.0
"""Adam over all parameters at once, kept in one flat buffer.

The released step spends a fifth of its time on Adam's bookkeeping for 39 small tensors. Adam works
element by element, so one tensor that holds all parameters gives the same bits for a fraction of
the calls. The parameters of the model become views of the buffer, so its state dict stays live;
files hold one entry a parameter, as `torch.optim.Adam` over the model's parameters writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        assert self._flat.grad is not None
        self._flat.grad.zero_()

    def step(self, grad_clip: float) -> None:
        """Scale the gradients to a norm of at most `grad_clip`, then take one step.

        The norm is the norm of the parameters' norms, as `torch.nn.utils.clip_grad_norm_` has it.
        """
        assert self._flat.grad is not None
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._gradients, 2.0)), 2.0)
        self._flat.grad.mul_(torch.clamp(grad_clip / (norm + 1e-6), max=1.0))
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """The state dict of a `torch.optim.Adam` over the parameters one by one."""
        state = self._adam.state_dict()
        entries: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(self._sizes))}
        for name, value in state["state"].get(0, {}).items():
            parts = [value] * len(entries) if name == "step" else self._views(value)
            for index, part in enumerate(parts):
                entries[index][name] = part.clone()
        group = {**state["param_groups"][0], "params": list(entries)}
        return {
            "state": {index: entry for index, entry in entries.items() if entry},
            "param_groups": [group],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; raises ValueError for the state of other parameters."""
        entries = [state["state"].get(index, {}) for index in range(len(self._sizes))]
        fits = len(state["param_groups"][0]["params"]) == len(entries) and all(
            entry["exp_avg"].numel() == size for entry, size in zip(entries, self._sizes) if entry
        )
        if not fits:
            raise ValueError("optimizer_state: is of another model's parameters")
        joined: dict[str, Tensor] = {}
        if entries[0]:
            joined["step"] = entries[0]["step"]
            for name in ("exp_avg", "exp_avg_sq"):
                joined[name] = torch.cat([entry[name].flatten() for entry in entries])
        group = {**self._adam.state_dict()["param_groups"][0], "lr": state["param_groups"][0]["lr"]}
        self._adam.load_state_dict(
            {"state": {0: joined} if joined else {}, "param_groups": [group]}
        )

"""Adaptive local mean teacher (ALMT): a mean teacher over a window of recent epochs that grows with training.

"Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization" (OGEN), Zang et al., ICLR 2024.
https://arxiv.org/abs/2401.15914

Reproduced: an exponential moving average over the snapshots of epochs `t - m_t, ..., t`, with `m_t` on a cosine
schedule. Not stated in the released code, which holds no teacher at all: the decay (0.9 is our choice) and
`m_min = 2`, `m_max = 9` (our choice too: the values are not verified in a primary source, nor is the exact form of
the schedule). The window is kept exactly: no running average stands in for it.

Notation: `t` epochs so far, `m_t` window of epoch `t`.
"""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from ogenlib.distill.ema import ema_over
from ogenlib.distill.named import NamedTensors, check_decay, check_whole, snapshot
from ogenlib.distill.teacher import Teacher


def window_size(t: int, total: int, m_min: int = 2, m_max: int = 9) -> int:
    """``floor((m_max - m_min) * (1 + cos(pi * (t + total) / total)) / 2) + m_min`` for `t = 0, ..., total`.

    Grows from `m_min` at `t = 0` to `m_max` at `t = total`, slowly at both ends. Evaluated in double precision as
    written: half-way, where the exact product can be a whole number, rounding may land one below it.

    Raises:
        ValueError: `t` outside 0, ..., `total`, or not ``0 <= m_min <= m_max``.
    """
    check_whole("total", total, 1)
    check_whole("m_min", m_min, 0)
    check_whole("m_max", m_max, 0)
    if m_min > m_max:
        raise ValueError(f"m_min={m_min} is larger than m_max={m_max}; the window grows from m_min to m_max")
    if check_whole("t", t, 0) > total:
        raise ValueError(f"t={t}: the schedule ends at total={total}")
    return math.floor((m_max - m_min) * (1 + math.cos(math.pi * (t + total) / total)) / 2) + m_min


class AdaptiveLocalMeanTeacher(Teacher):
    """EMA over the snapshots of epochs `t - m_t, ..., t`, oldest first, started at the oldest of them.

    The last ``m_max + 1`` snapshots are kept as a ring buffer in the student's dtype and on its device; while there
    are fewer than ``m_t + 1``, all there are make the average. Meant for prompts, adapters and other small sets of
    tensors: the memory is up to ``m_max + 1`` times theirs, and once more for the average.

    Args:
        total: number of epochs of the run; the window reaches `m_max` there.
        m_min, m_max: window at the start and at the end (our choice, see the module).
        decay: weight of the past in the average (our choice, see the module).

    Raises:
        ValueError: `total` below 1, not ``0 <= m_min <= m_max``, or `decay` outside [0, 1).
    """

    total: int

    def __init__(self, tensors: NamedTensors, total: int, m_min: int = 2, m_max: int = 9, decay: float = 0.9) -> None:
        super().__init__(tensors, total)
        window_size(0, total, m_min, m_max)
        self.m_min, self.m_max, self.decay = m_min, m_max, check_decay(decay)
        self._snapshots: deque[dict[str, Tensor]] = deque(maxlen=m_max + 1)
        self._averaged: dict[str, Tensor] | None = None

    def window(self, t: int) -> int:
        """`m_t` of this teacher's schedule, `t = 0, ..., total`: see `window_size`.

        Raises:
            ValueError: `t` outside 0, ..., `total`.
        """
        return window_size(t, self.total, self.m_min, self.m_max)

    def _record(self, t: int, tensors: NamedTensors) -> None:
        self._snapshots.append(snapshot(tensors))
        self._averaged = None

    def _average(self) -> dict[str, Tensor]:
        if self._averaged is None:  # asked for at every step, changes once an epoch
            self._averaged = ema_over(list(self._snapshots)[-(self.window(self.t) + 1) :], self.decay)
        return self._averaged

    def _settings(self) -> dict[str, int | float]:
        return {"total": self.total, "m_min": self.m_min, "m_max": self.m_max, "decay": self.decay}

    def _epochs(self, t: int) -> range:
        """Epochs whose snapshots are kept after `t` updates."""
        return range(max(1, t - self.m_max), t + 1)

    def _layout(self, t: int) -> dict[str, tuple[str, torch.dtype]]:
        return {
            f"snapshot/{epoch}/{name}": (name, tensor.dtype)
            for epoch in self._epochs(t)
            for name, tensor in self._tensors.items()
        }

    def _memory(self) -> dict[str, Tensor]:
        return {
            f"snapshot/{epoch}/{name}": tensor
            for epoch, kept in zip(self._epochs(self.t), self._snapshots, strict=True)
            for name, tensor in kept.items()
        }

    def _restore(self, t: int, memory: dict[str, Tensor]) -> None:
        self._snapshots.clear()
        for epoch in self._epochs(t):
            self._snapshots.append({name: memory[f"snapshot/{epoch}/{name}"] for name in self._tensors})
        self._averaged = None

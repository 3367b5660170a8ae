"""Teachers that need one accumulator: every snapshot is mixed into a running average and forgotten.

``average <- keep_t * average + take_t * snapshot_t``; subclasses say what `keep_t` and `take_t` are.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ogenlib.distill.named import NamedTensors, accumulator_dtype, mix, snapshot
from ogenlib.distill.teacher import Teacher


class RunningAverage(Teacher):
    """One accumulator in fp32 (fp64 for fp64 students), whatever the number of snapshots.

    Args:
        with_start: the average starts at the tensors as they are now; otherwise at the first snapshot.
    """

    def __init__(self, tensors: NamedTensors, total: int | None = None, *, with_start: bool) -> None:
        super().__init__(tensors, total)
        self.with_start = bool(with_start)
        self._running: dict[str, Tensor] = self._widened(self._tensors) if self.with_start else {}

    @abstractmethod
    def _rates(self, t: int) -> tuple[float, float]:
        """`keep_t` and `take_t`; not asked for the snapshot that the average starts at."""

    @staticmethod
    def _widened(tensors: NamedTensors) -> dict[str, Tensor]:
        return {name: tensor.to(accumulator_dtype(tensor.dtype)) for name, tensor in snapshot(tensors).items()}

    def _record(self, t: int, tensors: NamedTensors) -> None:
        self._running = mix(self._running, tensors, *self._rates(t)) if self._running else self._widened(tensors)

    def _average(self) -> dict[str, Tensor]:
        return self._running

    def _layout(self, t: int) -> dict[str, tuple[str, torch.dtype]]:
        if t == 0 and not self.with_start:
            return {}
        return {f"average/{name}": (name, accumulator_dtype(x.dtype)) for name, x in self._tensors.items()}

    def _memory(self) -> dict[str, Tensor]:
        return {f"average/{name}": tensor for name, tensor in self._running.items()}

    def _restore(self, t: int, memory: dict[str, Tensor]) -> None:
        self._running = {key.removeprefix("average/"): tensor for key, tensor in memory.items()}

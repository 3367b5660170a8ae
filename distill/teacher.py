"""What every teacher is: an average of a student's own past, taken over snapshots of its trainable tensors.

Notation: `t` updates so far; snapshot `t` is what the student held at ``update(t)``, `t = 1, 2, ...`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ogenlib.distill.named import NamedTensors, check_match, check_named, check_whole, copy_into, like, swap


class Teacher(ABC):
    """Base of all teachers. Subclasses write `_record`, `_average`, `_settings`, `_layout`, `_memory`, `_restore`.

    A teacher keeps the student's tensors by reference, reads them at every update and never writes to them,
    except on request (`copy_to`, `swapped`). What it remembers are detached copies.

    Args:
        tensors: the student's trainable tensors by name, such as ``host.trainable()``.
        total: number of updates to come, None where the average does not depend on it.

    Raises:
        TypeError: `tensors` is no mapping of names to tensors.
        ValueError: no tensors, or one without floating-point numbers; `total` below 1.
    """

    def __init__(self, tensors: NamedTensors, total: int | None = None) -> None:
        self._tensors = check_named(tensors)
        self._shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.total = None if total is None else check_whole("total", total, 1)
        self._t = 0

    @property
    def t(self) -> int:
        """Number of updates so far."""
        return self._t

    def update(self, t: int) -> None:
        """Take the student's tensors as snapshot `t`; `t` counts 1, 2, ... without gaps.

        Raises:
            ValueError: a skipped or repeated `t`, one beyond `total`, or a tensor whose shape has changed.
        """
        check_whole("t", t, 0)
        if self.total is not None and self._t == self.total:
            raise ValueError(f"update({t}): all {self.total} updates are done; make a teacher with a larger total")
        if t != self._t + 1:
            raise ValueError(f"update({t}): expected update({self._t + 1}); updates run 1, 2, 3, ..., each once")
        for name, tensor in self._tensors.items():
            if tensor.shape != self._shapes[name]:
                raise ValueError(
                    f"{name!r} was {tuple(self._shapes[name])} and is now {tuple(tensor.shape)}; "
                    "make a new teacher for tensors of another shape"
                )
        self._record(t, self._tensors)
        self._t = t

    def state(self) -> dict[str, Tensor]:
        """The teacher's tensors by name: new copies in the student's dtype and on its device.

        Raises:
            RuntimeError: there was no update yet.
        """
        if self._t == 0:
            raise RuntimeError(f"{type(self).__name__} has seen no snapshot; call update(1) before state()")
        return like(self._average(), self._tensors)

    def copy_to(self, tensors: NamedTensors | None = None) -> None:
        """Write the teacher's tensors into `tensors` (default: the student's) in place, for good.

        Raises:
            RuntimeError: there was no update yet.
            ValueError: other names or shapes.
        """
        copy_into(self._tensors if tensors is None else tensors, self.state())

    def swapped(self, tensors: NamedTensors | None = None) -> AbstractContextManager[None]:
        """``with teacher.swapped(): ...`` runs the block with the teacher's tensors in place of the student's.

        The block runs without gradients. On its end, or when it raises, the student's are back bit for bit.

        Raises:
            RuntimeError: there was no update yet.
            ValueError: other names or shapes, or views of parameters.
        """
        return swap(self._tensors if tensors is None else tensors, self.state())

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """All that continuing needs, one level deep: the count, the settings (plain numbers) and tensors."""
        memory = {key: tensor.detach().clone() for key, tensor in self._memory().items()}
        return {"t": self._t, **self._settings(), **memory}

    def load_state_dict(self, state: Mapping[str, Tensor | int | float]) -> None:
        """Continue where `state_dict` was taken, bit for bit.

        Raises:
            ValueError: of another kind of teacher, other settings, or other tensors; nothing is changed then.
        """
        kind = type(self).__name__
        numbers = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        settings = self._settings()
        if numbers.keys() != {"t", *settings}:
            raise ValueError(f"state has the numbers {sorted(numbers)}, {kind} needs {sorted({'t', *settings})}")
        differing = [f"{key}: saved {numbers[key]}, here {now}" for key, now in settings.items() if numbers[key] != now]
        if differing:
            raise ValueError(f"state of a {kind} with other settings ({'; '.join(differing)}); make it with the saved")
        t = check_whole("t", numbers["t"], 0)  # type: ignore[arg-type]
        if self.total is not None and t > self.total:
            raise ValueError(f"state after update {t}, but total={self.total}")
        layout = self._layout(t)
        check_match({key: self._tensors[name] for key, (name, _) in layout.items()}, tensors, "state")
        for key, (_, dtype) in layout.items():
            if tensors[key].dtype != dtype:
                raise ValueError(
                    f"state has {key!r} as {tensors[key].dtype}, expected {dtype}; use the precision saved"
                )
        devices = {key: self._tensors[name].device for key, (name, _) in layout.items()}
        self._restore(t, {key: tensors[key].detach().to(device, copy=True) for key, device in devices.items()})
        self._t = t

    @abstractmethod
    def _record(self, t: int, tensors: NamedTensors) -> None:
        """Remember what snapshot `t` adds."""

    @abstractmethod
    def _average(self) -> dict[str, Tensor]:
        """The teacher's tensors; `state` copies them."""

    @abstractmethod
    def _settings(self) -> dict[str, int | float]:
        """Numbers that a saved state must agree on."""

    @abstractmethod
    def _layout(self, t: int) -> dict[str, tuple[str, torch.dtype]]:
        """Keys of what is remembered after `t` updates, each with the student's tensor it is shaped as and dtype."""

    @abstractmethod
    def _memory(self) -> dict[str, Tensor]:
        """What is remembered, under the keys of `_layout`."""

    @abstractmethod
    def _restore(self, t: int, memory: dict[str, Tensor]) -> None:
        """Take back what `_memory` gave after `t` updates."""

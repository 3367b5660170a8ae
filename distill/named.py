"""Named tensors: what teachers read from a student and put back into it.

Everything here takes and returns plain dictionaries name -> tensor; nothing in them requires a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

NamedTensors = Mapping[str, Tensor]


def check_named(tensors: NamedTensors) -> dict[str, Tensor]:
    """The same tensors in a dictionary of their own.

    Raises:
        TypeError: not a mapping of names to tensors.
        ValueError: an empty mapping, or a tensor that cannot be averaged (integers, booleans, complex numbers).
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"a teacher takes named tensors such as host.trainable(), got {type(tensors).__name__}")
    if not tensors:
        raise ValueError("no tensors to average: pass the trainable ones by name, such as host.trainable()")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"{name!r}: {type(tensor).__name__}; a teacher takes names with tensors")
        if not tensor.is_floating_point():
            raise ValueError(f"{name!r} is {tensor.dtype}; only floating-point tensors can be averaged, leave it out")
    return dict(tensors)


def check_match(tensors: NamedTensors, values: NamedTensors, what: str) -> None:
    """Refuse `values` that differ from `tensors` in names or shapes; `what` names the values in the message.

    Raises:
        ValueError: names missing, names too many, or another shape.
    """
    missing, extra = sorted(tensors.keys() - values.keys()), sorted(values.keys() - tensors.keys())
    if missing or extra:
        raise ValueError(f"{what} lacks {missing} and has {extra} besides; give it the names {sorted(tensors)}")
    for name, tensor in tensors.items():
        if tensor.shape != values[name].shape:
            raise ValueError(f"{what} has {name!r} as {tuple(values[name].shape)}, expected {tuple(tensor.shape)}")


def snapshot(tensors: NamedTensors) -> dict[str, Tensor]:
    """Detached copies, in the dtype and on the device of each tensor."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32, or fp64 for fp64: sums of half-precision tensors lose steps smaller than their rounding."""
    return torch.promote_types(dtype, torch.float32)


@torch.no_grad()
def mix(average: NamedTensors, values: NamedTensors, keep: float, take: float) -> dict[str, Tensor]:
    """New tensors ``keep * average + take * values``, in the accumulator's dtype and on the device of `values`."""
    mixed = {}
    for name, value in values.items():
        value = value.detach()
        old = average[name].to(value.device, accumulator_dtype(value.dtype))
        mixed[name] = keep * old + take * value.to(old.dtype)
    return mixed


@torch.no_grad()
def like(values: NamedTensors, tensors: NamedTensors) -> dict[str, Tensor]:
    """Copies of `values` in the dtype and on the device of `tensors`."""
    return {name: values[name].detach().to(tensor.device, tensor.dtype, copy=True) for name, tensor in tensors.items()}


@torch.no_grad()
def copy_into(tensors: NamedTensors, values: NamedTensors) -> None:
    """Overwrite `tensors` in place.

    Raises:
        ValueError: other names or shapes; nothing is written then.
    """
    check_match(tensors, values, "what is copied")
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


@contextmanager
def swap(tensors: NamedTensors, values: NamedTensors) -> Iterator[None]:
    """Let `tensors` hold `values` inside the block, without gradients; afterwards their own memory is back.

    The memory itself is exchanged, not the numbers in it: what comes back is the same bit for bit, whatever the
    block did to the tensors and also when it raised, and a graph recorded before the block can still be
    differentiated after it. Autocast keeps casts of weights for the whole of its block, by tensor and not by what is in
    it: inside, nothing of it is used or added, so that no layer computes with the student's casts.

    Raises:
        ValueError: other names or shapes, or a view, behind which the module would keep its own memory.
    """
    check_match(tensors, values, "what is swapped in")
    views = [name for name, tensor in tensors.items() if tensor._is_view()]
    if views:
        raise ValueError(f"{views} are views; pass the parameters themselves, such as host.trainable()")
    own = {name: tensor.data for name, tensor in tensors.items()}
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            for name, value in like(values, tensors).items():
                tensors[name].data = value
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for name, tensor in tensors.items():
            tensor.data = own[name]


def check_whole(name: str, value: int, low: int) -> int:
    """`value` if it is a whole number of at least `low`.

    Raises:
        TypeError, ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: must be a whole number")
    if value < low:
        raise ValueError(f"{name}={value}: must be {low} or more")
    return value


def check_decay(decay: float) -> float:
    """`decay` if it lies in [0, 1).

    Raises:
        ValueError: it does not; at 1 a teacher would never move.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay}: must be at least 0 and below 1")
    return float(decay)


def check_positive(name: str, value: float) -> float:
    """`value` if it is a finite number above 0.

    Raises:
        ValueError: it is not.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value}: must be a positive number")
    return float(value)

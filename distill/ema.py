"""Exponential moving average, in closed form, over a list, and as a teacher that is updated every step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ogenlib.distill.named import NamedTensors, accumulator_dtype, check_decay, check_whole, mix
from ogenlib.distill.running import RunningAverage


def ema_weights(count: int, decay: float) -> list[float]:
    """Weights, oldest first, that an average started at the first of `count` snapshots gives them; their sum is 1.

    ``decay ** (count - 1)`` for the oldest, ``(1 - decay) * decay ** (count - i)`` for the i-th after it
    (i = 2, ..., count).

    Raises:
        ValueError: `count` below 1, or `decay` outside [0, 1).
    """
    check_whole("count", count, 1)
    check_decay(decay)
    return [decay ** (count - 1), *((1 - decay) * decay ** (count - i) for i in range(2, count + 1))]


def ema_over(snapshots: Sequence[NamedTensors], decay: float) -> dict[str, Tensor]:
    """``theta <- decay * theta + (1 - decay) * snapshot`` over `snapshots`, oldest first, started at the oldest.

    Returns fp32 tensors (fp64 for fp64).

    Raises:
        ValueError: no snapshots, or `decay` outside [0, 1).
    """
    check_decay(decay)
    if not snapshots:
        raise ValueError("no snapshots to average")
    average = {name: x.detach().to(accumulator_dtype(x.dtype), copy=True) for name, x in snapshots[0].items()}
    for later in snapshots[1:]:
        average = mix(average, later, decay, 1 - decay)
    return average


class EMA(RunningAverage):
    """``theta <- decay * theta + (1 - decay) * student`` at every update, started at the tensors as they are now.

    Meant for one update an optimizer step: make it before training and call ``update(step)``.

    Args:
        decay: 0.999 is the rate that "Mean teachers are better role models" (Tarvainen & Valpola, NeurIPS 2017,
            https://arxiv.org/abs/1703.01780) settles on, for runs of many thousand steps. After n updates the start
            still weighs ``decay ** n``: take a smaller one for short runs.

    Raises:
        ValueError: `decay` outside [0, 1).
    """

    def __init__(self, tensors: NamedTensors, decay: float = 0.999) -> None:
        super().__init__(tensors, with_start=True)
        self.decay = check_decay(decay)

    def _rates(self, t: int) -> tuple[float, float]:
        return self.decay, 1 - self.decay

    def _settings(self) -> dict[str, int | float]:
        return {"ema_decay": self.decay}

"""Beta-weighted average of the training trajectory.

TRACER (2026, probably https://arxiv.org/abs/2605.29380) distils from a Beta(0.5, 0.5)-weighted moving average of
the trajectory: start and end weigh most. That much is given. Where the density is read is not: it has poles at 0 and 1
for a, b < 1, so it is read at the midpoints of equal cells, with the start of the run as its first snapshot. This
follows the Beta moving average in the released code of CLIPood (https://arxiv.org/abs/2302.00864), which averages
every step; taking TRACER's average to be the same, and averaging epochs, are ours.

Notation: `t` update.
"""

from __future__ import annotations

import math

from ogenlib.distill.named import NamedTensors, check_positive, check_whole
from ogenlib.distill.weighted import WeightedAverage, normalised


def _log_density(count: int, a: float, b: float) -> list[float]:
    check_whole("count", count, 1)
    check_positive("a", a)
    check_positive("b", b)
    points = ((i + 0.5) / count for i in range(count))
    return [(a - 1) * math.log(x) + (b - 1) * math.log1p(-x) for x in points]


def beta_weights(count: int, a: float = 0.5, b: float = 0.5) -> list[float]:
    """Weights proportional to ``x^(a-1) (1-x)^(b-1)`` at the midpoints of `count` equal cells of [0, 1]; sum 1.

    Raises:
        ValueError: `count` below 1, or `a` or `b` not positive.
    """
    return normalised(_log_density(count, a, b))


class BetaTrajectoryAverage(WeightedAverage):
    """Mean of the start and snapshots 1, ..., t of the run with Beta(a, b) weights, renormalised over those seen.

    Args:
        total: number of updates of the run.
        a, b: of the Beta density (TRACER: 0.5, 0.5).
        with_start: the tensors as they are now are the first snapshot, so that the density is read at
            ``(t + 1/2) / (total + 1)`` for `t = 0, ..., total`; without, at ``(t - 1/2) / total`` from `t = 1`.
            With it, make the teacher before training.

    Raises:
        ValueError: `total` below 1, or `a` or `b` not positive.
    """

    def __init__(
        self, tensors: NamedTensors, total: int, a: float = 0.5, b: float = 0.5, *, with_start: bool = True
    ) -> None:
        self.a, self.b = float(a), float(b)
        check_whole("total", total, 1)
        super().__init__(tensors, total, _log_density(total + bool(with_start), a, b), with_start=with_start)

    def _settings(self) -> dict[str, int | float]:
        return {"total": self.total, "a": self.a, "b": self.b, "with_start": int(self.with_start)}

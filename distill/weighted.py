"""Averages with a weight for every snapshot of a run, known beforehand.

Notation: ``w(t)`` weight of snapshot `t`, normalised over the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ogenlib.distill.named import NamedTensors, check_whole
from ogenlib.distill.running import RunningAverage


def normalised(log_weights: Sequence[float]) -> list[float]:
    """Weights from their logarithms, divided by their sum; no weight is so small that all vanish."""
    largest = max(log_weights, default=0.0)
    raw = [math.exp(value - largest) for value in log_weights]
    total = math.fsum(raw)
    return [value / total for value in raw]


def newest_shares(log_weights: Sequence[float]) -> list[float]:
    """Share of every weight in the sum up to and including it.

    From logarithms: the first weights of a narrow bell are all 0 in double precision, and their shares 0 of 0.
    """
    shares, log_sum = [], -math.inf
    for value in log_weights:
        larger = max(value, log_sum)
        log_sum = larger + math.log(math.exp(value - larger) + math.exp(log_sum - larger))
        shares.append(min(1.0, math.exp(value - log_sum)))
    return shares


class WeightedAverage(RunningAverage):
    """Weighted mean of the snapshots seen so far, exact at every moment of the run.

    Before the last update the weights are renormalised over what was seen, so that `state` is always a mean and
    never a fraction of one; after it they are the weights of the whole run.

    Args:
        log_weights: logarithms of the weights up to a constant, in the order of the snapshots; the tensors as they
            are now come first if `with_start`.
    """

    total: int

    def __init__(self, tensors: NamedTensors, total: int, log_weights: Sequence[float], *, with_start: bool) -> None:
        super().__init__(tensors, total, with_start=with_start)
        self._log_weights = list(log_weights)
        self._shares = newest_shares(self._log_weights)

    def weights(self, t: int | None = None) -> list[float]:
        """Weights of the snapshots up to `t` (default: of the whole run), oldest first; their sum is 1.

        Raises:
            ValueError: `t` outside 1, ..., `total`.
        """
        t = self.total if t is None else check_whole("t", t, 1)
        if t > self.total:
            raise ValueError(f"t={t}: the weights end at total={self.total}")
        return normalised(self._log_weights[: t + self.with_start])

    def _rates(self, t: int) -> tuple[float, float]:
        take = self._shares[t - 1 + self.with_start]
        return 1 - take, take

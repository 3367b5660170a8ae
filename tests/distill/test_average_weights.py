"""Laws of the weights that averages give to snapshots."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.distill import (
    BetaTrajectoryAverage,
    GaussianPromptAverage,
    beta_weights,
    ema_over,
    ema_weights,
    gaussian_weights,
)

COUNTS = st.integers(1, 80)


@given(COUNTS, st.floats(0, 0.999))
def test_ema_weights(count: int, decay: float) -> None:
    got = ema_weights(count, decay)
    assert len(got) == count and math.fsum(got) == pytest.approx(1)
    assert all(a <= b for a, b in pairwise(got[1:]))  # the start stands apart, then newer weighs more


@given(st.integers(1, 12), st.floats(0, 0.999))
def test_ema_over_is_its_weights(count: int, decay: float) -> None:
    got = ema_over([{"x": torch.eye(count, dtype=torch.float64)[i]} for i in range(count)], decay)
    assert got["x"].tolist() == pytest.approx(ema_weights(count, decay))


def test_ema_over_by_hand() -> None:
    snapshots = [{"x": torch.tensor([v])} for v in (1.0, 2.0, 4.0)]
    assert ema_over(snapshots, 0.5)["x"].item() == 2.75  # (1 + 2) / 2 = 1.5, (1.5 + 4) / 2
    with pytest.raises(ValueError, match="no snapshots"):
        ema_over([], 0.5)


@given(COUNTS, st.floats(-50, 400), st.floats(0.1, 300))
def test_gaussian_weights(total: int, mu: float, sigma: float) -> None:
    got = gaussian_weights(total, mu, sigma)
    assert math.fsum(got) == pytest.approx(1)
    for (t, a), (u, b) in pairwise(enumerate(got, start=1)):  # rises up to the centre, falls after it
        assert (a <= b or t > mu - 1) and (a >= b or u < mu + 1)


@given(COUNTS)
def test_beta_weights_are_a_symmetric_bathtub(count: int) -> None:
    got = beta_weights(count)
    assert math.fsum(got) == pytest.approx(1)
    assert got == pytest.approx(got[::-1])
    assert all(a >= b for a, b in pairwise(got[: (count + 1) // 2]))


@given(COUNTS, st.floats(0.1, 5), st.floats(0.1, 5))
def test_beta_weights_mirror(count: int, a: float, b: float) -> None:
    assert beta_weights(count, a, b) == pytest.approx(beta_weights(count, b, a)[::-1], rel=1e-9)


def test_known_weights() -> None:
    e = math.exp(-0.5)
    assert gaussian_weights(3, 2, 1) == pytest.approx([e / (1 + 2 * e), 1 / (1 + 2 * e), e / (1 + 2 * e)])
    assert beta_weights(4, 1, 1) == pytest.approx([0.25] * 4)
    assert beta_weights(2, 2, 1) == pytest.approx([0.25, 0.75])
    raw = [6 / math.sqrt(5), 2, 6 / math.sqrt(5)]  # 1 / sqrt(x (1 - x)) at 1/6, 1/2, 5/6
    assert beta_weights(3) == pytest.approx([w / sum(raw) for w in raw])


def test_gaussian_defaults_are_the_released_ones_at_20_epochs() -> None:
    teacher = GaussianPromptAverage({"x": torch.zeros(1)}, total=20)
    assert (teacher.mu, teacher.sigma) == (15, 1)
    assert teacher.weights() == pytest.approx(gaussian_weights(20, 15, 1))


def test_a_narrow_bell_far_away_is_a_mean_all_the_same() -> None:
    """All weights up to the last epochs are 0 in double precision; the average must not become nan."""
    x = torch.zeros(1)
    teacher = GaussianPromptAverage({"x": x}, total=200, mu=199, sigma=0.5)
    for t in range(1, 201):
        x.fill_(t)
        teacher.update(t)
        if t < 199:  # the newest outweighs all before it by e^2 a step squared and more
            assert teacher.state()["x"].item() == pytest.approx(t, abs=0.01)
    side = math.exp(-2)
    assert teacher.state()["x"].item() == pytest.approx((199 + side * (198 + 200)) / (1 + 2 * side), abs=0.01)


def test_the_start_of_the_trajectory_is_an_option() -> None:
    x = torch.zeros(1)
    with_it = BetaTrajectoryAverage({"x": x}, total=3)
    without = BetaTrajectoryAverage({"x": x}, total=3, with_start=False)
    x.fill_(1)
    for t in (1, 2, 3):
        with_it.update(t)
        without.update(t)
    assert with_it.state()["x"].item() == pytest.approx(1 - beta_weights(4)[0])
    assert without.state()["x"].item() == pytest.approx(1)
    assert with_it.weights(1) == pytest.approx([w / sum(beta_weights(4)[:2]) for w in beta_weights(4)[:2]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ema_weights(0, 0.5), "count=0"),
        (lambda: gaussian_weights(0, 1, 1), "total=0"),
        (lambda: gaussian_weights(5, 1, 0), "sigma=0: must be a positive number"),
        (lambda: gaussian_weights(5, math.nan, 1), "mu=nan"),
        (lambda: beta_weights(0), "count=0"),
        (lambda: beta_weights(5, 0), "a=0: must be a positive number"),
        (lambda: beta_weights(5, 1, math.inf), "b=inf"),
        (lambda: GaussianPromptAverage({"x": torch.zeros(1)}, total=0), "total=0"),
        (lambda: BetaTrajectoryAverage({"x": torch.zeros(1)}, total=0), "total=0"),
        (lambda: BetaTrajectoryAverage({"x": torch.zeros(1)}, total=5, a=-1), "a=-1"),
        (lambda: BetaTrajectoryAverage({"x": torch.zeros(1)}, total=5).weights(6), "t=6: the weights end at total=5"),
        (lambda: BetaTrajectoryAverage({"x": torch.zeros(1)}, total=5).weights(0), "t=0: must be 1 or more"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

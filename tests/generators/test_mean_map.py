"""The map from names to image means: against regressions written out, each class left out in turn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.generators import fit_mean_map
from ogenlib.generators.mean_map import RIDGES, SLOPES, left_out_errors


def world(classes: int = 9, dim: int = 6, seed: int = 0, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Embeddings, and means that move with them by 0.4, plus a rotation of little weight and noise."""
    draws = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(classes, dim, generator=draws), dim=-1).double()
    turned = embeddings @ torch.linalg.qr(torch.randn(dim, dim, generator=draws))[0].double()
    means = 0.4 * embeddings + 0.1 * turned + noise * torch.randn(classes, dim, generator=draws)
    return embeddings, means + torch.randn(dim, generator=draws)


def primal(x: Tensor, y: Tensor, penalty: float, slope: float, at: Tensor) -> Tensor:
    """Ridge regression with an unpenalized constant on what `slope` leaves over, in its primal form."""
    a, b = x.mean(dim=0), y.mean(dim=0)
    rest = (y - b) - slope * (x - a)
    weights = torch.linalg.solve((x - a).T @ (x - a) + penalty * torch.eye(x.shape[1]), (x - a).T @ rest)
    return b + slope * (at - a) + (at - a) @ weights


def penalty_of(x: Tensor, ridge: float) -> float:
    return ridge * float((x - x.mean(dim=0)).square().sum(dim=1).mean())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), ridge=st.floats(0.01, 50), slope=st.floats(-1, 2))
def test_it_is_a_slope_and_ridge_regression_on_the_rest(seed: int, ridge: float, slope: float) -> None:
    x, y = world(seed=seed)
    new = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed + 1)), dim=-1).double()
    expected = primal(x, y, penalty_of(x, ridge), slope, new)
    torch.testing.assert_close(fit_mean_map(y, x, ridge=ridge, slope=slope)(new), expected)


def test_much_ridge_leaves_the_slope_and_little_gives_the_means_back() -> None:
    x, y = world(classes=5, dim=8)
    straight = y.mean(dim=0) + 0.7 * (x - x.mean(dim=0))
    torch.testing.assert_close(fit_mean_map(y, x, ridge=1e12, slope=0.7)(x), straight)
    torch.testing.assert_close(fit_mean_map(y, x, ridge=1e-9)(x), y, rtol=0, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), ridge=st.sampled_from(RIDGES), slope=st.floats(0, 1))
def test_left_out_errors_are_those_of_maps_fitted_without_the_class(seed: int, ridge: float, slope: float) -> None:
    x, y = world(seed=seed)
    found = left_out_errors(fit_mean_map(y, x, ridge=ridge, slope=slope), y)
    for c in range(len(x)):
        others = torch.arange(len(x)) != c
        predicted = primal(x[others], y[others], penalty_of(x, ridge), slope, x[c])
        torch.testing.assert_close(found[c], y[c] - predicted)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_chosen_has_the_smallest_left_out_error(seed: int) -> None:
    x, y = world(classes=20, seed=seed)
    chosen = fit_mean_map(y, x)
    best = left_out_errors(chosen, y).square().sum()
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    straight = float((a * b).sum() / a.square().sum())
    assert chosen.ridge in RIDGES and any(chosen.slope == pytest.approx(m * straight) for m in SLOPES)
    for ridge in RIDGES:
        for multiple in SLOPES:
            other = fit_mean_map(y, x, ridge=ridge, slope=multiple * straight)
            assert best <= left_out_errors(other, y).square().sum() * (1 + 1e-9)


def test_a_name_outside_the_span_of_the_known_ones_moves_its_mean_with_the_slope_only() -> None:
    x = torch.eye(6)[:4]
    y = 0.5 * x + 1.0
    outside = torch.eye(6)[5:]
    ridge_alone, both = fit_mean_map(y, x, slope=0.0, ridge=0.1), fit_mean_map(y, x)
    assert ridge_alone(outside)[0, 5] == pytest.approx(1.0)  # the mean of all, in the direction of its own
    assert both(outside)[0, 5] == pytest.approx(1.5, abs=1e-4) and both.slope == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge=0.0: must be a positive number"),
        ({"slope": float("nan")}, "slope=nan: must be a finite"),
    ],
)
def test_refused(options: dict[str, float], message: str) -> None:
    x, y = world()
    with pytest.raises(ValueError, match=message):
        fit_mean_map(y, x, **options)

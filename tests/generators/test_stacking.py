"""Calibrated stacking: the curve by hand, by brute force, and what no constant can change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.generators import ausuc, gate_auroc, stacking_curve


def drawn(n: int, known: int, unknown: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits and labels with images on both sides; rounded, so that there are ties."""
    draws = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(n, known + unknown, generator=draws)).round() / 2
    labels = torch.randint(known + unknown, (n,), generator=draws)
    labels[0], labels[1] = 0, known
    return logits, labels


def accuracies(logits: Tensor, labels: Tensor, n_known: int, constant: float) -> tuple[float, float]:
    """By brute force; at a tie of the two sides the unknown one is taken."""
    known, unknown = logits[:, :n_known] - constant, logits[:, n_known:]
    predicted = torch.where(known.amax(1) > unknown.amax(1), known.argmax(1), n_known + unknown.argmax(1))
    right, is_known = (predicted == labels).double(), labels < n_known
    return 100 * float(right[is_known].mean()), 100 * float(right[~is_known].mean())


def test_by_hand() -> None:
    # Known classes 0 and 1, unknown 2. Two known images with gaps 3 and 1, both named rightly among the known; two
    # unknown ones with gaps 2 and -1.
    logits = torch.tensor([[5.0, 0, 2], [0, 4, 3], [3, 0, 1], [0, 1, 2]])
    curve = stacking_curve(logits, torch.tensor([0, 1, 2, 2]), 2)
    assert curve.constants.tolist() == [-torch.inf, -1, 1, 2, 3]
    assert curve.known.tolist() == [100, 100, 50, 50, 0]
    assert curve.unknown.tolist() == [0, 50, 50, 100, 100]
    assert curve.area == pytest.approx((0 + 50 * 50 + 0 + 50 * 100) / 100)
    assert curve.at(0.0) == (100, 50) and curve.at(2.5) == (50, 100)
    assert curve.best == (-1.0, pytest.approx(2 * 100 * 50 / 150))


@given(n=st.integers(2, 60), known=st.integers(1, 4), unknown=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_against_brute_force(n: int, known: int, unknown: int, seed: int) -> None:
    logits, labels = drawn(n, known, unknown, seed)
    curve = stacking_curve(logits, labels, known)
    for constant in (-100.0, -2.25, 0.0, 0.5, 3.0, 100.0):
        assert curve.at(constant) == pytest.approx(accuracies(logits, labels, known, constant))
    assert (curve.known.diff() <= 0).all() and (curve.unknown.diff() >= 0).all()
    assert 0 <= curve.area <= 100


@given(constant=st.floats(-50, 50), seed=st.integers(0, 10**6))
def test_no_constant_moves_the_area(constant: float, seed: int) -> None:
    logits, labels = drawn(40, 3, 2, seed)
    moved = logits.double()
    moved[:, :3] += round(constant * 8) / 8  # exact in binary
    assert ausuc(moved, labels, 3) == pytest.approx(ausuc(logits, labels, 3))


@given(n=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_the_gate_is_the_share_of_pairs_in_order(n: int, seed: int) -> None:
    logits, labels = drawn(n, 3, 2, seed)
    gap = logits[:, :3].amax(1) - logits[:, 3:].amax(1)
    difference = gap[labels < 3][:, None] - gap[labels >= 3]
    pairs = (difference > 0).double() + 0.5 * (difference == 0)
    assert gate_auroc(logits, labels, 3) == pytest.approx(100 * float(pairs.mean()))


def test_perfect_and_hopeless() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    assert ausuc(torch.eye(4), labels, 2) == 100
    assert ausuc(-torch.eye(4), labels, 2) == 0


@pytest.mark.parametrize(
    ("logits", "labels", "n_known", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), 1, "do not fit"),
        (torch.zeros(3, 2), torch.zeros(2).long(), 1, r"\(3, 2\), labels \(2,\)"),
        (torch.zeros(3, 2), torch.zeros(3).long(), 2, "n_known=2"),
        (torch.zeros(3, 2), torch.zeros(3).long(), 1, "all are of one kind"),
        (torch.zeros(3, 2), torch.ones(3).long(), 1, "all are of one kind"),
    ],
)
def test_refused(logits: Tensor, labels: Tensor, n_known: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacking_curve(logits, labels, n_known)

"""MPM-NCE against its formula written out, and its special cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.hosts.parts.mpm_nce import mpm_nce, soft_targets

PAPER: dict[str, Any] = {"temperature": 0.01, "margin": 0.05, "smoothing": 0.1}


def unit(rows: int, seed: int, width: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(f: torch.Tensor, g: torch.Tensor, labels: list[int], tau: float, delta: float, eps: float) -> float:
    """The paper's double sum, with numbers, divided by two and the batch."""
    n, total = len(labels), 0.0
    for a, b in ((f, g), (g, f)):
        for i in range(n):
            own = [j for j in range(n) if labels[j] == labels[i]]
            logits = [(float(a[i] @ b[j]) + (0.0 if j in own else delta)) / tau for j in range(n)]
            top = max(logits)
            log_sum = top + math.log(sum(math.exp(x - top) for x in logits))
            for j in range(n):
                rest = n - len(own)
                share = (1 - eps if rest else 1) / len(own) if j in own else eps / rest
                total -= share * (logits[j] - log_sum)
    return total / (2 * n)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.floats(0, 0.9), st.floats(0, 0.2))
def test_it_is_the_written_formula(labels: list[int], smoothing: float, margin: float) -> None:
    f, g, y = unit(len(labels), 1), unit(len(labels), 2), torch.tensor(labels)
    got = mpm_nce(f, g, y[:, None] == y, temperature=0.05, margin=margin, smoothing=smoothing)
    assert got.item() == pytest.approx(by_hand(f, g, labels, 0.05, margin, smoothing), rel=1e-4, abs=1e-5)


def test_targets_by_hand() -> None:
    positive = torch.tensor([[True, False, True, False], [False, True, False, False], [True, True, True, True]])
    got = soft_targets(positive, 0.2)
    assert got.tolist() == [
        pytest.approx(row) for row in ([0.4, 0.1, 0.4, 0.1], [0.2 / 3, 0.8, 0.2 / 3, 0.2 / 3], [0.25] * 4)
    ]
    with pytest.raises(ValueError, match="a row has no positive"):
        soft_targets(torch.tensor([[True, False], [False, False]]), 0.1)


def test_one_positive_without_margin_or_smoothing_is_info_nce() -> None:
    f, g = unit(5, 3), unit(5, 4)
    logits, own = f @ g.T / 0.07, torch.arange(5)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    got = mpm_nce(f, g, torch.eye(5, dtype=torch.bool), temperature=0.07, margin=0.0, smoothing=0.0)
    torch.testing.assert_close(got, expected)


def test_a_batch_of_one_class_is_finite_and_pulls_towards_every_text() -> None:
    f, g = unit(3, 5).requires_grad_(), unit(3, 6)
    loss = mpm_nce(f, g, torch.ones(3, 3, dtype=torch.bool), **PAPER)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(f.grad).all() and f.grad.abs().max() > 0
    alone = mpm_nce(f[:1], g[:1], torch.ones(1, 1, dtype=torch.bool), **PAPER)
    assert alone.item() == 0.0  # nothing to tell apart


def test_the_margin_makes_negatives_harder() -> None:
    f, g, pairs = unit(4, 7), unit(4, 8), torch.eye(4, dtype=torch.bool)
    plain = mpm_nce(f, g, pairs, temperature=0.01, margin=0.0, smoothing=0.0)
    assert mpm_nce(f, g, pairs, temperature=0.01, margin=0.05, smoothing=0.0) > plain


def test_images_and_texts_need_not_be_as_many() -> None:
    f, g = unit(4, 9), unit(2, 10)
    positive = torch.tensor([[True, False], [True, False], [False, True], [False, True]])
    logits = (f @ g.T + 0.05 * (~positive)) / 0.01
    forth = F.cross_entropy(logits, torch.tensor([0, 0, 1, 1]))
    back = -(logits.T.log_softmax(1) * positive.T / 2).sum(1).mean()
    got = mpm_nce(f, g, positive, temperature=0.01, margin=0.05, smoothing=0.0)
    torch.testing.assert_close(got, (forth + back) / 2)
    with pytest.raises(ValueError, match=r"positive is \(2, 4\), expected \(4, 2\)"):
        mpm_nce(f, g, positive.T, **PAPER)


def test_half_precision_outside_does_not_round_the_logits() -> None:
    f, g, y = unit(6, 11), unit(6, 12), torch.arange(6) % 3
    plain = mpm_nce(f, g, y[:, None] == y, **PAPER)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mpm_nce(f, g, y[:, None] == y, **PAPER), plain)

"""The constant of calibrated stacking, curves that are kept, and the scores of competing names, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ogenlib.evaluate import LabelSpace, episodic_constant, space_scores, thinned
from ogenlib.generators import ausuc, gate_auroc, stacking_curve

NEW = LabelSpace((0, 1), (2, 3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_constant_of_a_closed_form() -> None:
    # An image's own name has logit 5 as a known one and 1 as an unknown one; all others have 0, as known ones 3.
    # A known image stays right below 5 - 0; an unknown one is right from 3 - 1 on.
    labels = torch.arange(6).repeat(4)
    own = torch.eye(6)[labels].bool()
    known, unknown = torch.where(own, 5.0, 3.0), torch.where(own, 1.0, 0.0)
    assert episodic_constant(known, unknown, labels, generator()) == pytest.approx((2 + 5) / 2)
    # All that the known names have too much is what the constant takes back.
    moved = episodic_constant(known + 7, unknown, labels, generator())
    assert moved == pytest.approx(7 + (2 + 5) / 2)


def test_the_constant_is_the_best_of_a_grid_over_the_same_episodes() -> None:
    labels = torch.arange(5).repeat(8)
    known = 2 * torch.randn(40, 5, generator=generator(1)) + 3 * torch.eye(5)[labels] + 1
    unknown = torch.randn(40, 5, generator=generator(2)) + 2 * torch.eye(5)[labels]
    chosen = episodic_constant(known, unknown, labels, generator(3), episodes=4)
    assert chosen is not None
    draws, same = generator(3), []
    for _ in range(4):
        order = torch.randperm(5, generator=draws)
        playing = torch.zeros(5, dtype=torch.bool)
        playing[order[:2]] = True
        same.append(playing)

    def mean(constant: float) -> float:
        total = 0.0
        for playing in same:
            right = torch.where(playing, unknown, known - constant).argmax(1) == labels
            a, b = (right[playing[labels] == side].double().mean().item() for side in (False, True))
            total += 2 * a * b / max(a + b, 1e-12)
        return total / 4

    assert mean(chosen) >= max(mean(c) for c in torch.linspace(-8, 8, 321).tolist()) - 1e-9
    again = episodic_constant(known, unknown, labels, generator(3), episodes=4)
    assert again == chosen != episodic_constant(known, unknown, labels, generator(4), episodes=4)


def test_where_there_is_nothing_to_choose() -> None:
    one = torch.ones(3, 1)
    assert episodic_constant(one, one, torch.zeros(3, dtype=torch.long), generator()) is None
    empty = torch.zeros(0, 4)
    assert episodic_constant(empty, empty, torch.zeros(0, dtype=torch.long), generator()) is None
    wrong = -torch.eye(4)
    assert episodic_constant(wrong, wrong, torch.arange(4), generator()) == 0.0
    with pytest.raises(ValueError, match=r"known \(3, 1\), unknown \(0, 4\) and labels \(3,\) do not fit"):
        episodic_constant(one, empty, torch.zeros(3, dtype=torch.long), generator())


@pytest.mark.parametrize("images", [200, 5000])
def test_a_thinned_curve_keeps_its_ends_and_its_area(images: int) -> None:
    labels = torch.arange(20).repeat(images // 20)
    logits = torch.randn(images, 20, generator=generator(images)) + 2 * torch.eye(20)[labels]
    curve = stacking_curve(logits, labels, 10)
    kept = thinned(curve)
    assert len(curve.constants) > 60 >= len(kept.constants)
    assert kept.area == pytest.approx(curve.area, abs=0.1)
    for whole, few in ((curve.known, kept.known), (curve.unknown, kept.unknown)):
        assert (few[0], few[-1]) == (whole[0], whole[-1])
    assert thinned(kept) is kept


def test_scores_where_names_compete() -> None:
    base = torch.tensor([[3.0, 0, 0, 0], [0, 2, 4, 0]]), torch.tensor([0, 1])  # the second taken for a new name
    new = torch.tensor([[0.0, 0, 1, 0], [3, 0, 0, 1]]), torch.tensor([0, 1])  # the second taken for a base name
    logits, labels = torch.cat([base[0], new[0]]), torch.tensor([0, 1, 2, 3])
    scores = space_scores(NEW, base, new, constant=1.5)
    assert scores["ausuc"] == ausuc(logits, labels, 2) and scores["gate_auroc"] == gate_auroc(logits, labels, 2)
    assert (scores["joint_H"], scores["joint_H_calibrated"]) == (50.0, 50.0)
    # Less 2.5, the last image is right too, and the first still is.
    assert space_scores(NEW, base, new, 2.5)["joint_H_calibrated"] == pytest.approx(2 * 50 * 100 / 150)
    assert "joint_H_calibrated" not in space_scores(NEW, base, new)


def test_one_sided_spaces_have_no_area() -> None:
    base, none = (torch.eye(4)[:2], torch.tensor([0, 1])), (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    for space, new in ((NEW, none), (LabelSpace((0, 1), (0, 1)), base)):
        scores = space_scores(space, base, new, 0.0)
        assert math.isnan(scores["ausuc"]) and math.isnan(scores["gate_auroc"])


def test_an_image_of_a_name_of_both_sides_is_one_of_a_known_name() -> None:
    space = LabelSpace((0, 1), (1, 2))
    base, new = (torch.eye(3)[:2], torch.tensor([0, 1])), (torch.eye(3)[1:], torch.tensor([0, 1]))
    logits, labels = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 1, 1, 2])
    assert space_scores(space, base, new)["ausuc"] == ausuc(logits, labels, 2) == 100

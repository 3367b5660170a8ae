"""Points of real and synthesized features in one plane."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.bench.feature_plane import project


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(counts: list[int], dim: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit rows around one centre per class; the centres are the same for every `seed`."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(len(counts), dim, generator=seeded(99))
    return F.normalize(centres[labels] + 0.3 * torch.randn(len(labels), dim, generator=seeded(seed)), dim=-1), labels


def names(n: int) -> list[str]:
    return [f"class {i}" for i in range(n)]


def xy(found: dict[str, Any], kind: str, place: int | None = None) -> Tensor:
    """`(P, 2)` points of a kind, of one class or of all."""
    return torch.tensor([p["xy"] for p in found["points"] if p["kind"] == kind and place in (None, p["class"])])


def test_distances_between_three_class_means_are_kept() -> None:
    # Three means span a plane, so the plane holds them exactly.
    rows, labels = clouds([20, 20, 20])
    found = project(rows, labels, *clouds([5, 5, 5], seed=1), names(3))
    means = torch.stack([rows[labels == c].mean(0) for c in range(3)])
    drawn = torch.stack([xy(found, "real", c).mean(0) for c in range(3)])
    assert torch.allclose(torch.cdist(drawn, drawn), torch.cdist(means, means), atol=2e-4)
    assert drawn.mean(0).norm() < 1e-4
    assert found["classes"] == names(3)


def test_synthesized_rows_and_names_do_not_turn_the_plane() -> None:
    real = clouds([20, 15, 10, 20])
    made, labels = clouds([9, 9, 9, 9], seed=1)
    a = project(*real, made, labels, names(4))
    b = project(*real, made.flip(1), labels, names(4), text=torch.randn(4, 12, generator=seeded(3)))
    assert torch.equal(xy(a, "real"), xy(b, "real"))
    assert not torch.allclose(xy(a, "synthesized"), xy(b, "synthesized"), atol=0.05)
    assert len(xy(b, "text")) == 4 and len(xy(a, "text")) == 0


def test_the_same_map_for_all_kinds() -> None:
    rows, labels = clouds([8, 8, 8])
    found = project(rows, labels, rows * 7, labels, names(3), text=rows[:3])  # length does not matter
    assert torch.equal(xy(found, "real"), xy(found, "synthesized"))
    assert torch.equal(xy(found, "text", 0)[0], xy(found, "real", 0)[0])


def test_two_classes_have_a_second_axis() -> None:
    rows, labels = clouds([20, 20])
    points = xy(project(rows, labels, rows, labels, names(2)), "real")
    between = points[:20].mean(0) - points[20:].mean(0)
    assert abs(between[0]) > 0.5 and abs(between[1]) < 1e-3
    assert points[:, 1].std() > 0.05


def test_small_and_the_same_every_time() -> None:
    rows, labels = clouds([70, 61, 65, 64, 60, 63, 62, 66])
    arguments = (rows, labels, *clouds([99] * 8, seed=1), names(8))
    found = project(*arguments)
    assert found == project(*arguments) == json.loads(json.dumps(found))
    assert len(found["classes"]) == 6 and len(found["points"]) == 2 * 6 * 60
    assert all(round(v, 4) == v for p in found["points"] for v in p["xy"])
    few = project(*arguments, max_classes=3, max_points=4)
    assert len(few["classes"]) == 3 and len(few["points"]) == 2 * 3 * 4


def test_classes_are_chosen_by_their_real_rows() -> None:
    corners = torch.eye(8)[[0, 0, 1, 1, 2, 3]] + 0.01 * torch.arange(6)[:, None] * torch.eye(8)[7]
    labels = torch.arange(6).repeat_interleave(torch.tensor([9, 9, 9, 9, 9, 1]))
    rows = corners[labels]
    found = project(rows, labels, rows, labels, names(6), max_classes=3)
    chosen = {int(name[-1]) for name in found["classes"]}
    # One of each near pair; the single image is too little to choose a class by.
    assert len(chosen & {0, 1}) == len(chosen & {2, 3}) == 1 and 4 in chosen
    reversed_made = project(rows, labels, rows.flip(0), labels, names(6), max_classes=3)
    assert reversed_made["classes"] == found["classes"]


def test_a_class_without_rows_on_one_side_is_left_out() -> None:
    rows, labels = clouds([5, 5, 5])
    found = project(rows, labels, rows[5:], labels[5:], names(3))
    assert found["classes"] == ["class 1", "class 2"]


ROWS, LABELS = clouds([4, 4])
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "one-class": ({"synthesized": ROWS[:4], "synthesized_labels": LABELS[:4]}, "1 classes have both"),
    "label": ({"real_labels": LABELS + 1}, "real: labels from 1 to 2 for 2 class names"),
    "count": ({"real_labels": LABELS[:3]}, r"real: rows \(8, 12\) and labels \(3,\)"),
    "width": ({"synthesized": ROWS[:, :5]}, "synthesized is 5 wide, real 12"),
    "nan": ({"synthesized": ROWS.log()}, "synthesized rows hold NaN"),
    "text": ({"text": torch.zeros(3, 12)}, "text: labels from 0 to 2 for 2"),
    "max": ({"max_classes": 1}, "max_classes=1"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    good = {"real": ROWS, "real_labels": LABELS, "synthesized": ROWS, "synthesized_labels": LABELS}
    with pytest.raises(ValueError, match=message):
        project(**{**good, "classnames": names(2), **change})

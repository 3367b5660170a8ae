"""Base-to-new scores against cases counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.data import BaseNewSplit, FeatureBank, ImageSet, Item
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import ZeroShot

PERCENT = st.floats(0, 100)


class Fixed:
    """A host whose logits are the features themselves: what is predicted is written in the bank."""

    uses_cached_features = True
    device = torch.device("cpu")

    def eval(self) -> Fixed:
        return self

    def image_features(self, batch):
        return batch.features

    def class_weights(self, names, z=None):
        return torch.eye(len(names))

    def logits(self, z, w):
        return z @ w.T


def bank(rows: list[list[float]], labels: list[int], domains: list[str] | None = None) -> FeatureBank:
    names = tuple("abcd"[: len(rows[0])])
    features = torch.tensor(rows)[:, None]
    keys = [str(i) for i in range(len(rows))]
    return FeatureBank(features, torch.tensor(labels), names, domains or ["x"] * len(rows), keys, {})


SPLIT = BaseNewSplit(("a", "b"), ("c", "d"))
# One image a row: what the four classes score. Base images 0-3, new images 4-7.
ROWS = [
    [9.0, 1, 0, 0],  # a: right among base, right among all
    [5.0, 1, 9, 0],  # a: right among base, taken for c among all
    [9.0, 1, 0, 0],  # b: taken for a in both
    [0.0, 9, 0, 0],  # b: right in both
    [0.0, 0, 9, 1],  # c: right in both
    [9.0, 0, 5, 1],  # c: right among new, taken for a among all
    [0.0, 0, 9, 1],  # d: taken for c in both
    [0.0, 0, 9, 1],  # d: the same
]
LABELS = [0, 0, 1, 1, 2, 2, 3, 3]


def test_split_and_joint_accuracies_counted_by_hand() -> None:
    domains = ["near"] * 4 + ["far"] * 4
    got = evaluate.base_to_new(Fixed(), bank(ROWS, LABELS, domains), SPLIT)
    assert got["base"] == 75 and got["new"] == 50
    assert got["joint_base"] == 50 and got["joint_new"] == 25
    assert got["H"] == pytest.approx(60) and got["joint_H"] == pytest.approx(100 / 3)
    assert got.domains["near"]["base"] == 75 and math.isnan(got.domains["near"]["new"])
    assert got.per_class["a"] == {"side": "base", "n": 2, "accuracy": 100.0, "joint_accuracy": 50.0}
    assert got.per_class["d"] == {"side": "new", "n": 2, "accuracy": 0.0, "joint_accuracy": 0.0}


def test_confusions_name_the_worst_pairs_first() -> None:
    got = evaluate.base_to_new(Fixed(), bank(ROWS, LABELS), SPLIT)
    first = evaluate.confusions(got, "x")[0]
    assert (first["true"], first["predicted"], first["count"], first["of"]) == ("d", "c", 2, 2)
    assert first["true_is"] == "new" and first["keys"] == ["6", "7"]
    assert evaluate.confusions(got, "elsewhere") == []
    crossed = [p for p in evaluate.confusions(got, "x") if p["true_is"] != p["predicted_is"]]
    assert {(p["true"], p["predicted"]) for p in crossed} == {("a", "c"), ("c", "a")}


def test_classes_are_scored_whatever_their_order_in_the_bank() -> None:
    swapped = BaseNewSplit(("d", "b"), ("a", "c"))
    got = evaluate.base_to_new(Fixed(), bank([[0.0, 0, 0, 9]], [3]), swapped)
    assert got.names == ("d", "b", "a", "c") and got.labels.tolist() == [0]


def test_a_missing_class_is_refused() -> None:
    with pytest.raises(ValueError, match="'e'"):
        evaluate.base_to_new(Fixed(), bank(ROWS, LABELS), BaseNewSplit(("a",), ("e",)))


def test_calibration_error_of_a_known_confidence() -> None:
    # Two classes at log odds log 3: confidence 0.75. All right: error 25; three of four right: 0; none: 75.
    logits = torch.tensor([[math.log(3), 0.0]] * 4)
    assert evaluate.ece(logits, torch.tensor([0, 0, 0, 0])) == pytest.approx(25, abs=1e-4)
    assert evaluate.ece(logits, torch.tensor([1, 1, 1, 1])) == pytest.approx(75, abs=1e-4)
    # Fifteen confidences, four images each, three of every four right: the error is the mean |p - 0.75|.
    p = torch.linspace(0.55, 0.97, 15).repeat_interleave(4)
    labels = torch.tensor([0, 0, 0, 1]).repeat(15)
    sixty = torch.stack([(p / (1 - p)).log(), torch.zeros(60)], 1)
    assert evaluate.ece(sixty, labels) == pytest.approx(100 * (p - 0.75).abs().mean().item(), abs=1e-3)
    assert math.isnan(evaluate.ece(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))


@given(PERCENT, PERCENT)
def test_harmonic_mean_laws(a: float, b: float) -> None:
    h = evaluate.harmonic_mean(a, b)
    assert h == evaluate.harmonic_mean(b, a)
    assert min(a, b) - 1e-9 <= h <= (a + b) / 2 + 1e-9 or a * b < 1e-300
    assert evaluate.harmonic_mean(a, a) == pytest.approx(a)


def test_images_and_their_bank_score_the_same(clip, tmp_path) -> None:
    from PIL import Image

    colours = {"red square": "red", "blue square": "blue", "green square": "green", "black square": "black"}
    items = [Item(Image.new("RGB", (64, 64), c), i, "x", n) for i, (n, c) in enumerate(colours.items())]
    images = ImageSet(items, tuple(colours))
    host = ZeroShot(clip, list(colours), "a {}")
    direct = evaluate.predict_logits(host, images, list(colours), batch_size=3)
    cached = evaluate.predict_logits(host, FeatureBank.extract(clip, images), list(colours))
    assert direct.shape == (4, 4)
    torch.testing.assert_close(direct, cached, atol=1e-4, rtol=0)

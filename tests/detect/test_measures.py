"""AUROC, AUPR, FPR95, thresholds, curves and histograms against pytorch-ood's and against counting by hand."""

from __future__ import annotations

import pytest
import torch
from pytorch_ood.metrics import OODMetrics

from ogenlib.detect.measures import histogram, measures, roc, threshold_at
from ogenlib.detect.overlap import overlapping


def two_sides() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(1000, generator=draws), torch.randn(700, generator=draws) + 1


def test_measures_agree_with_pytorch_ood() -> None:
    known, unknown = two_sides()
    labels = torch.cat([torch.zeros(1000), -torch.ones(700)])
    theirs = OODMetrics().update(torch.cat([known, unknown]), labels).compute()
    ours = measures(known, unknown)
    assert ours["auroc"] == pytest.approx(100 * float(theirs["AUROC"]), abs=1e-3)
    assert ours["fpr95_ood_positive"] == pytest.approx(100 * float(theirs["FPR95TPR"]), abs=0.3)
    for ours_name, theirs_name in (("aupr_in", "AUPR-IN"), ("aupr_out", "AUPR-OUT")):
        assert ours[ours_name] == pytest.approx(100 * float(theirs[theirs_name]), abs=0.3)
    swapped = measures(-unknown, -known)
    assert ours["fpr95_id_positive"] == pytest.approx(swapped["fpr95_ood_positive"], abs=0.2)


def test_equal_scores_are_chance() -> None:
    found = measures(torch.zeros(30), torch.zeros(10))
    assert found["auroc"] == 50.0
    assert found["aupr_out"] == pytest.approx(25.0)
    assert found["fpr95_ood_positive"] == 100.0


def test_measures_counted_by_hand() -> None:
    known, unknown = torch.arange(20.0), torch.tensor([18.5, 5.5])  # 19 of 20 known are at most 18
    found = measures(known, unknown)
    assert found["auroc"] == pytest.approx(100 * (19 + 6) / 40)
    assert found["fpr95_id_positive"] == 50.0  # 5.5 passes, 18.5 does not
    assert found["fpr95_ood_positive"] == 70.0  # to catch both, 6 to 19 are flagged: 14 of 20
    assert threshold_at(known) == 18.0


def test_the_curve_is_what_is_caught_at_each_share_flagged() -> None:
    known, unknown = torch.arange(10.0), torch.tensor([9.5, 4.5, 2.0])
    assert roc(known, unknown, torch.tensor([0.0, 0.4, 0.5, 1.0])) == [0.3333, 0.3333, 0.6667, 1.0]
    assert roc(known, unknown, torch.tensor([0.7, 0.8])) == [0.6667, 1.0]
    known, unknown = two_sides()
    at = torch.linspace(0, 1, 1001)
    curve = torch.tensor(roc(known, unknown, at))
    assert float(torch.trapezoid(curve, at)) == pytest.approx(measures(known, unknown)["auroc"] / 100, abs=2e-3)


def test_a_histogram_counts_every_score() -> None:
    known, unknown = two_sides()
    found = histogram({"known": torch.cat([known, torch.tensor([1e6])]), "near": unknown}, bins=10)
    assert len(found["edges"]) == 11 and found["edges"][-1] < 10  # one strange score does not stretch it
    assert {name: sum(counts) for name, counts in found["counts"].items()} == {"known": 1001, "near": 700}
    assert histogram({"known": torch.ones(3)})["edges"][0] < 1  # no width of its own


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([0.0, float("nan")]), torch.zeros(2, 2)])
def test_no_scores_or_nan_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one number for each image"):
        measures(bad, torch.zeros(3))


def test_names_overlap_where_one_holds_all_words_of_another() -> None:
    known = ("balance beam, beam", "daisy", "violin, fiddle", "honeycomb")
    names = ("Balance Beam", "oxeye daisy", "Playing Violin", "honeycombed", "Surfing", "rose")
    assert overlapping(names, known) == [True, True, True, True, False, False]

"""Measures of the OOD study against pytorch-ood's, and the exclusion of classes by name."""

from __future__ import annotations

import pytest
import torch
from ood_study import measures
from ood_tasks import overlapping
from pytorch_ood.metrics import OODMetrics


def test_measures_agree_with_pytorch_ood() -> None:
    draws = torch.Generator().manual_seed(0)
    known, unknown = torch.randn(1000, generator=draws), torch.randn(700, generator=draws) + 1
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


def test_names_overlap_where_one_holds_all_words_of_another() -> None:
    known = ("balance beam, beam", "daisy", "violin, fiddle", "honeycomb")
    names = ("Balance Beam", "oxeye daisy", "Playing Violin", "honeycombed", "Surfing", "rose")
    assert overlapping(names, known) == [True, True, True, True, False, False]

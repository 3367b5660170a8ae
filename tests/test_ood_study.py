"""The OOD study: what tasks share is scored once, single detectors can be run again, and paths stay out of the file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common.origin import command
from benchmarks.ood import study as ood_study
from benchmarks.ood.detectors import Entry, entries
from benchmarks.ood.study import Scored, forget, started
from benchmarks.ood.tasks import Task

CARD = {"seeds": [1], "shots": {}, "vocabulary": [], "excluded": {}, "rows": {}, "selection": "x", "git": "new"}


def task(name: str, unknown: torch.Tensor | None = None) -> Task:
    rows = torch.nn.functional.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.arange(8) % 4
    return Task(name, rows[:4], None, rows[4:12], labels, rows[12:20], rows[20:] if unknown is None else unknown)


def test_what_tasks_share_is_fitted_and_scored_once() -> None:
    calls = {"fits": 0, "rows": 0}

    def make(given: Task, settings: Any) -> Any:
        calls["fits"] += 1

        def score(rows: torch.Tensor) -> torch.Tensor:
            calls["rows"] += len(rows)
            return rows[:, 0]

        return score

    detector = Scored(Entry("images", make), {})
    first, second = task("a"), task("b", task("a").unknown[:5].clone())
    assert detector.measures(first) == detector.measures(first)
    detector.measures(second)
    assert calls == {"fits": 1, "rows": 8 + 10 + 5}
    picture = detector.picture(first)
    assert sum(picture["counts"]["known"]) == 8 and len(picture["roc"]) == 101


def test_rows_of_other_detectors_stay(tmp_path: Path) -> None:
    path = tmp_path / "ood.json"
    rows = [{"detector": name, "task": "t"} for name in ("MCM", "GMM")]
    old = {"schema": ood_study.SCHEMA, "protocol": CARD | {"git": "old"}, "rows": rows, "validation": {"GMM": 1}}
    path.write_text(json.dumps(old))
    document = started(CARD, path)
    forget(document, "GMM")
    assert [row["detector"] for row in document["rows"]] == ["MCM"] and document["validation"] == {}
    assert document["protocol"]["git"] == "new"
    assert started(CARD, None)["rows"] == started(CARD, tmp_path / "none.json")["rows"] == []
    path.write_text(json.dumps(old | {"protocol": CARD | {"seeds": [1, 2]}}))
    with pytest.raises(ValueError, match=r"measured otherwise \(seeds\)"):
        started(CARD, path)


def test_the_command_names_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--features", "/home/me/x", "--only", "GMM", "--out", "/tmp/o"]
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/ood/study.py", *words])
    assert command("ood.study") == "python -m benchmarks.ood.study --features DIR --only GMM --out FILE"
    assert command("ood.emoji") == "python -m benchmarks.ood.emoji"  # which is not what was called


@pytest.mark.parametrize("name", ["Mahalanobis", "RMD", "GMM", "KNN"])
def test_detectors_on_features_run(name: str) -> None:
    if name == "KNN":
        pytest.importorskip("sklearn", reason="extra knn is not installed (scikit-learn)")
    detector = Scored(entries(torch.eye(8))[name], {"k": 2} if name == "KNN" else {})
    known, unknown = detector.sides(task("a"))
    assert torch.isfinite(known).all() and len(unknown) == 10

"""The committed pictures of docs/ood.md are of the committed results, and are drawn from counts alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ood import figures as ood_figures
from benchmarks.ood.tables import TASKS

ROOT = Path(__file__).resolve().parents[1]


def test_the_pictures_are_of_the_results() -> None:
    assert ood_figures.main(["--check"]) == 0, "run python -m benchmarks.ood.figures"


def test_pictures_are_drawn_from_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="extra plot is not installed (matplotlib)")
    picture = {"edges": [0.0, 1.0, 2.0], "counts": {"known": [3, 1], "unknown": [1, 3]}, "roc": [0.0, 0.75, 1.0]}
    path = tmp_path / "benchmarks" / "results" / "ood.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pictures": {"MCM": dict.fromkeys(TASKS, picture)}}))
    assert ood_figures.main(["--root", str(tmp_path), "--check"]) == 1
    assert ood_figures.main(["--root", str(tmp_path)]) == 0
    assert ood_figures.main(["--root", str(tmp_path), "--check"]) == 0
    drawn = {p.name: p.read_text() for p in (tmp_path / "docs" / "images").iterdir()}
    assert set(drawn) == set(ood_figures.DRAWN) and all("<path" in text for text in drawn.values())
    path.write_text(json.dumps({"pictures": {"MCM": {"imagenet-dtd": picture}}}))
    assert ood_figures.main(["--root", str(tmp_path)]) == 2
    assert "no pictures of MCM" in capsys.readouterr().err

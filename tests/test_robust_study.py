"""The study of robust fine-tuning: what is run, and what its rows become."""

from __future__ import annotations

from pathlib import Path

import pytest
import robust_study
from hosts_study import host_variants
from study_documents import robust_document

from ogenlib.hosts import METHODS
from ogenlib.robustness import MEASURES


def test_every_fine_tuning_method_is_run() -> None:
    found = robust_study.fine_tuning_hosts()
    assert found[0] == "zero_shot" and "full_ft" in found and "coop" not in found
    assert set(found[1:]) == {n for n, cls in METHODS.items() if cls.info.kind == "fine-tuning"}
    assert robust_study.parse([]).hosts == found and robust_study.parse([]).part is None


def test_tables_keep_points_by_dataset() -> None:
    document = robust_document()
    points = {(e["host"], e["point"]) for e in document["summary"]}
    assert ("vpt", "VRF, paper") in points and ("full_ft", "chosen") in points and ("zero_shot", "chosen") not in points
    assert {e["task"] for e in document["summary"]} == {"emoji-categories"}
    assert document["costs"][1] == {"host": "full_ft", "ogen": False, "epochs": 20, "seconds": 15.0, "parameters": 4000}


def test_a_finished_run_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the smallest of the embedded datasets: what takes the time is encoding of images."""
    monkeypatch.setattr(robust_study, "VIEWS", 1)
    args = robust_study.parse(["--shots", "2", "--domains", "noto", "emojione-monotone", "--alphas", "0", "1",
                               "--retention", "emoji-concepts/food-drink", "--work", str(tmp_path)])  # fmt: skip
    here = robust_study.world("emoji-concepts/activities", ["taskres"], args)
    cells = [(variant, here, 1, 1) for variant in host_variants(["zero_shot", "taskres"])][:2]
    rows = robust_study.run_all(cells, tmp_path)
    assert robust_study.run_all(cells, tmp_path) == rows and len(list(tmp_path.glob("*.json"))) == 2
    zero, tuned = rows
    assert {k: tuned["curve"][0][k] for k in MEASURES} == {k: zero[k] for k in MEASURES}
    assert zero["parameters"] == 0 and tuned["parameters"] == pytest.approx(64 * 128)
    assert robust_study.tables(rows)["summary"][0]["host"] == "zero_shot"

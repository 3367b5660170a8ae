"""What a training step costs: every method is measured, beside full fine-tuning in the same rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.robust import cost as robust_cost
from ogenlib.hosts import METHODS


@pytest.fixture(scope="module")
def setting() -> robust_cost.Setting:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(robust_cost.BATCHES, "ogen-tiny", 4)
        return robust_cost.Setting.load("ogen-tiny")


def test_every_fine_tuning_method_is_a_case() -> None:
    found = {case.host for case in robust_cost.cases()} | {robust_cost.REFERENCE}
    assert found == {name for name, cls in METHODS.items() if cls.info.kind == "fine-tuning"}


def test_methods_take_turns_and_are_compared_round_by_round(
    setting: robust_cost.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"full_ft": iter([9.0, 1.0, 2.0, 4.0]), "r_adapter": iter([9.0, 2.0, 1.0, 2.0])}
    monkeypatch.setattr(robust_cost, "steps", lambda host, bank: seconds[host.info.name])
    rows = robust_cost.timed(setting, [robust_cost.Case("low", "r_adapter", {"rank": 2})], 3)
    assert [row["case"] for row in rows] == ["full_ft", "low"]
    assert rows[0]["ratios"] == [1, 1, 1] and rows[1]["ratios"] == [2, 0.5, 0.5] and rows[1]["ratio"] == 0.5
    assert rows[0]["seconds"] == 2 and rows[1]["parameters"] < rows[0]["parameters"] / 10


def test_a_step_trains(setting: robust_cost.Setting) -> None:
    host = setting.host(robust_cost.Case("arf", "arf"))
    before = {name: p.detach().clone() for name, p in host.trainable().items()}
    run = robust_cost.steps(host, setting.bank)
    assert next(run) > 0 and len(setting.bank) == 4
    assert any((p != before[name]).any() for name, p in host.trainable().items())
    assert host.config()["made_with"]["anchors"]["pairs"] == 4


def test_results_of_models_join_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = {"host": "full_ft", "seconds": 1.0, "ratio": 1.0}
    monkeypatch.setattr(robust_cost.Setting, "load", lambda model: model)
    monkeypatch.setattr(
        robust_cost,
        "timed",
        lambda setting, chosen, rounds: [{"case": "full_ft", **row}, *({"case": case.name, **row} for case in chosen)],
    )
    monkeypatch.setattr(robust_cost, "peak_elsewhere", lambda model, case: 1.0)
    out = tmp_path / "cost.json"
    for model in ("ViT-B-16", "ogen-tiny", "ViT-B-16"):
        robust_cost.main(["--models", model, "--cases", "kd", "l2_sp", "--rounds", "2", "--out", str(out)])
    document = json.loads(out.read_text(encoding="utf-8"))
    assert list(document["protocol"]["models"]) == ["ogen-tiny", "ViT-B-16"]
    cases = ["zero_shot", "full_ft", "l2_sp", "kd"]
    assert [(row["model"], row["case"]) for row in document["rows"]] == [
        *(("ogen-tiny", case) for case in cases),
        *(("ViT-B-16", case) for case in cases),
    ]
    row["seconds"] = 2.0
    robust_cost.main(["--models", "ViT-B-16", "--cases", "lp_ft", "kd", "--rounds", "2", "--out", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"][len(cases) :]
    assert [(row["case"], row.get("seconds")) for row in rows] == [
        ("zero_shot", None),
        ("full_ft", 1.0),
        ("lp_ft", 2.0),
        ("l2_sp", 1.0),
        ("kd", 2.0),
    ]

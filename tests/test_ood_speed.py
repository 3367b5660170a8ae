"""The speed and memory script on few rows: what it writes is what the table reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.ood import speed as ood_speed
from benchmarks.ood.tables import speed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


def test_each_detector_is_timed_and_its_memory_is_a_number() -> None:
    timed = ood_speed.throughput(200, 8, 16, 1)
    assert [row["detector"] for row in timed] == list(ood_speed.DETECTORS)
    assert all(row["rows_a_second"] > 0 and row["rows"] == 200 for row in timed)
    found = [ood_speed.memory(name, 200, 8, 16) for name in ood_speed.DETECTORS]
    assert all(row["peak_over_features_mib"] >= 0 for row in found)


def test_children_fill_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said_by(module: str, *options: str) -> object:
        assert module == "ood.speed"
        rows = int(options[options.index("--rows") + 1])
        if "throughput" in options:
            return ood_speed.throughput(rows, 8, 16, 1)
        if ood_speed.FITTED in options:
            return ood_speed.fitting(rows, 8, 16)
        return ood_speed.memory(options[1], rows, 8, 16)

    monkeypatch.setattr(ood_speed, "said_by", said_by)
    document = ood_speed.run(100, 8, 16, [1], tmp_path / "speed.json")
    assert json.loads((tmp_path / "speed.json").read_text()) == document
    assert [(row["detector"], row["rows"]) for row in document["memory"]][:3] == [
        ("MCM", 10),
        ("OGENDetector", 10),
        ("OGENDetector", 100),
    ]
    table = speed(document)
    assert "| MCM |" in table and "MiB, 100 features" in table and "/tmp" not in json.dumps(document)
    assert table.count("\nFitting ") == 2 and "Fitting 100 features in float16 (0 MiB)" in table
    kept = {**document, "fitting": None}
    (tmp_path / "speed.json").write_text(json.dumps(kept))
    again = ["--only", "fitting", "--rows", "100", "--out", str(tmp_path / "speed.json")]
    assert ood_speed.main(again) == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    assert {**found, "fitting": None} == kept and [row["rows"] for row in found["fitting"]["rows"]] == [10, 100]

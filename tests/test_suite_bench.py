"""A table over a suite: its folders, its average, going on, and the published rows beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ogenlib.bench.protocols import PROTOCOLS
from ogenlib.bench.runner import BenchConfig
from ogenlib.bench.suite import run_suite, suite_document
from ogenlib.cli.main import main
from ogenlib.data import COOP11
from ogenlib.report.page import build_report
from ogenlib.report.text import summary_text
from ogenlib.results import published
from ogenlib.results import tables as results

pytestmark = pytest.mark.slow

PAIR = ("emoji-concepts/food-drink", "emoji-concepts/activities")  # in the suite's order


def config(**changes: Any) -> BenchConfig:
    given = {
        "suite": "emoji8",
        "targets": PAIR,
        "hosts": ("taskres",),
        "ogen": "no",
        "epochs": 1,
        "shots": 1,
        "views": 1,
        "seeds": (1, 2),
        "test_domains": ("noto",),
    }
    return BenchConfig(**{**given, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("suite")
    run_suite(config(), out)
    return out


def test_the_summary_holds_every_dataset_and_the_average(finished: Path) -> None:
    document = json.loads((finished / "results.json").read_text())
    parts = [json.loads((finished / name / "results.json").read_text()) for name in PAIR]
    assert document["rows"] == [row for part in parts for row in part["rows"]]
    assert set(document["protocol"]["datasets"]) == set(PAIR) and document["protocol"]["suite"] == "emoji8"
    means = [e for e in document["summary"] if e["dataset"] == "average"]
    assert [(e["host"], e["domain"], e["n_seeds"]) for e in means] == [("zero_shot", "noto", 2), ("taskres", "noto", 2)]
    for entry in means:
        rows = [r for r in document["rows"] if r["host"] == entry["host"]]
        base, new, h = (sum(r[k] for r in rows) / len(rows) for k in ("base", "new", "H"))
        assert entry["base"][0] == pytest.approx(base) and entry["H"][0] == pytest.approx(h)
        assert entry["H_of_means"] == pytest.approx(2 * base * new / (base + new))
    assert {t["dataset"] for t in document["tests"]} == {"average", *PAIR}
    assert document["published"] == []  # there are none of emoji


def test_the_report_and_the_text_of_a_suite(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "the mean of 2 datasets" in page and "Each trained and tested by itself" in page
    assert "Published beside it" not in page and "Every run (8)" in page
    assert "The mean of 2 datasets" in page and "Mean of the other" not in page
    text = summary_text(json.loads((finished / "results.json").read_text()))
    assert [block.split("\n")[0] for block in text.split("\n\n")] == [f"{name} / noto" for name in (*PAIR, "average")]


def test_a_killed_suite_goes_on(finished: Path) -> None:
    rows = json.loads((finished / "results.json").read_text())["rows"]
    cells = {p: p.stat().st_mtime_ns for name in PAIR for p in (finished / name / "cells").iterdir()}
    gone = finished / PAIR[1] / "cells" / "taskres-seed2.json"
    gone.unlink()
    cells.pop(gone)
    (finished / "results.json").unlink()
    again = run_suite(config(), finished)
    assert {p: p.stat().st_mtime_ns for p in cells} == cells and gone.exists()
    assert [{**r, "seconds": 0} for r in again["rows"]] == [{**r, "seconds": 0} for r in rows]


def test_a_missing_dataset_is_said_before_anything_is_trained(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(["bench", "--suite", "coop11", "--root", str(tmp_path), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "imagenet" in err and not out.exists()


# --- published rows ---------------------------------------------------------------------------------------


def test_only_rows_read_in_their_source_are_published() -> None:
    rows = published.published_halves("coop11", COOP11)
    assert {row["tag"] for row in rows} == {"V CITE", "V RMA"} and all(row["source"] for row in rows)
    # By dataset these two hold cells that are not confirmed; OGEN's average is only recalled.
    assert not {"KgCoOp", "PromptSRC", "OGEN"} & {row["method"] for row in rows}
    shifts = published.published_shifts("imagenet", published.SHIFTS)
    assert {row["tag"] for row in shifts} == {"V RMA Tables 2-3"}


def test_published_averages_are_those_of_the_papers() -> None:
    rows = published.published_halves("coop11", COOP11)
    averages = [row for row in rows if row["dataset"] == "average"]
    means = {row["method"]: (round(row["base"], 2), round(row["new"], 2)) for row in averages}
    assert means == {
        "CLIP": (69.34, 74.22),
        "CoOp": (82.69, 63.22),
        "CoCoOp": (80.47, 71.69),
        "MaPLe": (82.28, 75.14),
        "CoPrompt": (84.00, 77.23),
        "CLIP-CITE": (85.44, 77.07),
    }
    (coop,) = (r for r in rows if (r["method"], r["dataset"]) == ("CoOp", "dtd"))
    assert (coop["base"], coop["new"]) == (79.44, 41.18) and coop["H"] == pytest.approx(54.24, abs=0.005)


def test_published_shifts_and_transfers() -> None:
    rows = published.published_shifts("imagenet", published.SHIFTS)
    means = {r["method"]: round(r["new"], 2) for r in rows if r["dataset"] == "average"}
    assert means["CLIP"] == 57.18 and means["CoOp"] == 59.28 and means["PromptSRC"] == 60.65
    transfers = published.published_transfers("imagenet", COOP11)
    assert {r["method"]: r["new"] for r in transfers}["MaPLe"] == 66.30
    assert "CLIP" not in {r["method"] for r in transfers}  # not published there
    assert published.published_transfers("imagenet", COOP11[:5]) == []  # a mean of other datasets
    assert PROTOCOLS["few-shot"].shown.published is None
    assert published.published_transfers("emoji-categories", ["emoji-concepts/objects"]) == []


def test_published_rows_stand_beside_ones_own(finished: Path) -> None:
    parts = [json.loads((finished / name / "results.json").read_text()) for name in PAIR]
    for part, name in zip(parts, ("dtd", "eurosat"), strict=True):
        part["protocol"]["dataset"] = name
        part["rows"] = [{**row, "dataset": name} for row in part["rows"]]
    document = suite_document("coop11", parts, "", 0.0)
    text = summary_text(document)
    assert text.count("[V CITE] CLIP-CITE (arXiv 2407.04003), table 1") == 3 * 5 and text.count("[V RMA]") == 3
    page = build_report(document)
    assert "Published beside it" in page and "CoPrompt" in page and "CLIP ViT-B/16" in page
    assert document["schema"] == results.SCHEMA

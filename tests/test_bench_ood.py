"""`ogen bench --protocol ood`: tasks, what is left out of them, the document, the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_ood.detector import MCM

from ogenlib.bench.protocols import plan
from ogenlib.bench.protocols.ood import without_known
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.bench.suite import run_suite
from ogenlib.cli.main import main
from ogenlib.data import FeatureBank, load_dataset
from ogenlib.detect.measures import METRICS, measures
from ogenlib.detect.of_host import DETECTORS
from ogenlib.hosts import build
from ogenlib.report.page import build_report
from ogenlib.report.text import summary_text
from ogenlib.results import tables as results

pytestmark = pytest.mark.slow

QUICK = {"iterations": 4, "per_class": 4, "rows": 4}
FAR = "emoji-concepts/activities"


def small(**changes: Any) -> BenchConfig:
    return BenchConfig(
        **{
            "protocol": "ood",
            "hosts": ("taskres",),
            "ogen_settings": QUICK,
            "shots": 2,
            "epochs": 1,
            "views": 1,
            "seeds": (1, 2),
            "test_domains": ("noto", "openmoji"),
            "targets": (FAR,),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ood")
    run_bench(small(), out)
    return out


@pytest.fixture(scope="module")
def document(finished: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    return found


def test_every_host_task_and_detector_has_a_row(document: dict[str, Any]) -> None:
    assert document["schema"] == results.SCHEMA
    card = document["protocol"]
    assert (card["n_base"], card["n_new"], card["unknown_names"]) == (26, 0, 25)
    assert card["new_names_known_in_training"] is False and card["unknown_names_told"] is False
    tasks = {
        ("emoji-categories", "noto", "near"),
        (FAR, "noto", "far"),
        ("emoji-categories", "", "full-spectrum"),
        ("emoji-categories", "openmoji", "shift"),
    }
    variants = {("zero_shot", False), ("taskres", False), ("taskres", True)}
    got = {
        (r["host"], r["ogen"], r["seed"], r["detector"], r["dataset"], r["domain"], r["task"]) for r in document["rows"]
    }
    assert got == {(*v, seed, d, *t) for v in variants for seed in (1, 2) for d in DETECTORS for t in tasks}
    for row in document["rows"]:
        assert all(0 <= row[m] <= 100 for m in (*METRICS, "flagged"))
        assert row["flagged"] == pytest.approx(100 - row["fpr95_id_positive"])
        assert (row["base"] is None) == (row["task"] != "near") and row["new"] is None


def test_a_row_is_what_the_detector_says_of_the_features(finished: Path, document: dict[str, Any], clip) -> None:
    planned = plan(small())
    banks = [FeatureBank.load(path) for path in (finished / "banks").glob("test-*.safetensors")]
    bank = next(b for b in banks if len(b) == len(planned.parts[0].images))
    host = build(
        "zero_shot",
        clip,
        planned.known,
        **type(build("zero_shot", clip, ["x"])).dataset_options(planned.source.templates),
    )
    scores = MCM(None, host.class_weights()).predict_features(bank.features[:, 0])
    known = bank.labels < len(planned.known)
    home = torch.tensor([domain == "noto" for domain in bank.domains])
    rows = {r["task"]: r for r in document["rows"] if (r["host"], r["seed"], r["detector"]) == ("zero_shot", 1, "mcm")}
    sides = {
        "near": (known & home, ~known & home),
        "full-spectrum": (known, ~known & home),
        "shift": (known & home, known & ~home),
    }
    for task, (first, second) in sides.items():
        by_hand = measures(scores[first], scores[second])
        assert {m: rows[task][m] for m in METRICS} == pytest.approx(by_hand, abs=0.2), task


def test_far_images_are_of_nothing_that_the_source_has() -> None:
    planned = plan(small())
    source, far = planned.source, planned.parts[1]
    things = {key.split("/", 1)[1] for key in (*source.train.keys, *source.test.keys)}
    assert far.dataset == FAR and far.images.domains and set(far.images.domains) == {"noto"}
    assert not things & {key.split("/", 1)[1] for key in far.images.keys}
    (card,) = planned.card["far"]
    assert card["images"] == len(far.images) and card["drawings_of_the_source_left_out"] > 0
    assert planned.new == ()  # OGEN is not told what detectors must find unknown


def test_classes_that_hold_a_known_name_are_left_out() -> None:
    source = load_dataset("emoji-concepts/food-drink")
    target = load_dataset("emoji-concepts/animals-nature", test_domains=["noto"])
    kept, left_out, drawings = without_known(target.test, target.name, source, ["dog", "cactus plant"])
    assert "guide dog" in left_out or "dog face" in left_out or "dog" in left_out
    assert not any("dog" in target.classnames[item.label].split() for item in kept)
    assert "cactus" not in left_out and drawings == 0


def test_targets_of_the_protocol() -> None:
    every = plan(small(targets=()))
    assert len(every.parts) == 9 and {p.dataset for p in every.parts[1:]} >= {FAR}
    assert len(plan(small(targets=("none",))).parts) == 1
    group = plan(small(dataset="emoji-concepts/objects", targets=(), test_domains=None))
    assert len(group.parts) == 8 and group.home == "noto"


def test_means_and_tests(finished: Path) -> None:
    run_bench(small(targets=(FAR, "emoji-concepts/symbols"), ogen="no", ogen_settings={}), finished / "two")
    document = json.loads((finished / "two" / "results.json").read_text(encoding="utf-8"))
    own = [r for r in document["rows"] if (r["host"], r["seed"], r["detector"]) == ("taskres", 1, "ogen")]
    far = [r["auroc"] for r in own if r["task"] == "far"]
    assert len(far) == 2
    entry = next(
        e
        for e in document["summary"]
        if (e["dataset"], e["task"], e["host"], e["detector"]) == ("average", "far", "taskres", "ogen")
    )
    assert entry["n_seeds"] == 2 and entry["auroc"][1] is not None
    seeds = [
        [
            r["auroc"]
            for r in document["rows"]
            if (r["host"], r["seed"], r["detector"], r["task"]) == ("taskres", seed, "ogen", "far")
        ]
        for seed in (1, 2)
    ]
    assert entry["auroc"][0] == pytest.approx(sum(map(sum, seeds)) / 4)
    tested = {(t["task"], t["detector"], t["metric"], t["a"], t["b"]) for t in document["tests"]}
    assert ("near", "ogen", "auroc", "taskres", "zero_shot") in tested
    assert all(t["dataset"] == "average" for t in document["tests"] if t["task"] in ("far", "shift"))


def test_pictures_are_kept_as_counts(document: dict[str, Any]) -> None:
    assert [(e["host"], e["ogen"], e["seed"]) for e in document["detection"]] == [
        ("zero_shot", False, 1),
        ("taskres", False, 1),
        ("taskres", True, 1),
    ]
    for entry in document["detection"]:
        assert entry["missing"] == {} and tuple(entry["detectors"]) == tuple(DETECTORS)
        for picture in entry["detectors"].values():
            assert set(picture["counts"]) == {"known", "shifted", "near", "far"} and len(picture["edges"]) == 41
            assert set(picture["roc"]) == {"shifted", "near", "far"}
            assert all(a <= b for a, b in zip(picture["roc"]["near"], picture["roc"]["near"][1:], strict=False))


def test_the_report_and_the_terminal(document: dict[str, Any]) -> None:
    page = build_report(document)
    assert "Images of no known class</h2>" in page and "OGENDetector with images" in page
    assert page.count("<svg") >= 6 and "Every task and measure" in page and "Paired tests" in page
    assert not [word for word in ("None", "nan") if f">{word}<" in page] and "Summary on" not in page
    assert "By OGENDetector with images, TaskRes tells new names at" in page
    text = summary_text(document)
    assert text.count("taskres + OGEN") == len(DETECTORS) and "near AUROC" in text
    row = next(e for e in document["summary"] if (e["host"], e["task"], e["detector"]) == ("zero_shot", "near", "mcm"))
    assert f"{row['auroc'][0]:.1f}" in text.split("MaxLogit")[0]


def test_finished_cells_are_not_trained_again(finished: Path, document: dict[str, Any]) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (finished / "cells").iterdir()}
    again = run_bench(small(), finished)
    assert {p.name: p.stat().st_mtime_ns for p in (finished / "cells").iterdir()} == before
    assert again["rows"] == document["rows"]


def test_a_suite_tests_new_names_only(tmp_path: Path) -> None:
    config = small(
        suite="emoji8",
        targets=(FAR, "emoji-concepts/symbols"),
        dataset="emoji-categories",
        shots=1,
        seeds=(1,),
        hosts=("zero_shot",),
        ogen="no",
        ogen_settings={},
        test_domains=None,
    )
    document = run_suite(config, tmp_path)
    assert {r["task"] for r in document["rows"]} == {"near", "full-spectrum", "shift"}
    near = [r["auroc"] for r in document["rows"] if (r["task"], r["detector"]) == ("near", "mcm")]
    wanted = ("average", "near", "mcm")
    mean = next(e for e in document["summary"] if (e["dataset"], e["task"], e["detector"]) == wanted)
    assert len(near) == 2 and mean["auroc"][0] == pytest.approx(sum(near) / 2)
    assert "Images of no known class" in build_report(document)


def test_smoke_is_one_far_dataset_and_two_domains() -> None:
    quick = small(targets=(), test_domains=None, epochs=50, shots=16).smoke()
    assert (quick.targets, quick.test_domains, quick.epochs, quick.shots) == ((FAR,), ("noto", "openmoji"), 4, 4)
    assert small(targets=("none",)).smoke().targets == ("none",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "none", FAR], "'none' stands alone"),
        (["--targets", "emoji-categories"], "leave it out"),
        (["--targets", "emoji-concept"], "Did you mean"),
        (["--train-domain", "noto"], "train_domain='noto' is for --protocol domain-generalization"),
        (["--retention", FAR], "are for --protocol domain-shift"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["bench", "--protocol", "ood", *options, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_no_far_task_is_for_this_protocol() -> None:
    with pytest.raises(ValueError, match="'none' stands alone, and is for --protocol ood"):
        BenchConfig(protocol="cross-dataset", targets=("none",))

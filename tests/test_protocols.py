"""Protocols: what each trains and tests, label spaces counted by hand, and what the documents say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ogenlib.bench.checks import OPTIONS
from ogenlib.bench.config import SHOTS_LIST
from ogenlib.bench.protocols import PROTOCOLS, Part, plan
from ogenlib.bench.protocols.parts.plan import Tested as Banks
from ogenlib.bench.protocols.parts.sides import SidesJudge
from ogenlib.bench.protocols.registry import LISTINGS, NO_TARGETS, SECTIONS
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.data import FeatureBank, ImageSet, Item, base_new_split, load_dataset
from ogenlib.evaluate import scores as evaluate
from ogenlib.evaluate.label_space import LabelSpace, label_spaces
from ogenlib.report.format import label
from ogenlib.report.page import build_report
from ogenlib.report.sections.beside import shots_section
from ogenlib.report.text import LISTED, summary_text
from ogenlib.results import tables as results
from ogenlib.utils.variant import Variant

pytestmark = pytest.mark.slow

QUICK = {"iterations": 4, "per_class": 4, "rows": 4}


def small(**changes: Any) -> BenchConfig:
    given = {"epochs": 1, "shots": 1, "views": 1, "seeds": (1,), "ogen": "no", "hosts": ("taskres",)}
    return BenchConfig(**{**given, **changes})


# --- label spaces -----------------------------------------------------------------------------------------


def test_classes_of_both_datasets_are_one() -> None:
    names, spaces = label_spaces(("cat", "Hot_dog", "car"), [("bus", "hot dog"), ("tram", "bus")])
    assert names == ("cat", "Hot_dog", "car", "bus", "tram")  # spelled as first seen
    assert spaces == (LabelSpace((0, 1, 2), (3, 1)), LabelSpace((0, 1, 2), (4, 3)))
    assert spaces[0].joint == (0, 1, 2, 3) and spaces[0].shared == 1 and spaces[1].shared == 0


# Columns: cat, hot dog, car | bus, tram. The target's classes are bus and hot dog, in that order.
SPACE = LabelSpace((0, 1, 2), (3, 1))
SOURCE = (
    [9.0, 0, 0, 5, 0],  # cat: right in both
    [0.0, 5, 0, 9, 0],  # hot dog: right among the source's names, taken for bus among all
    [0.0, 0, 5, 0, 9],  # car: right in both, tram is not of this target
    [0.0, 9, 5, 0, 0],  # car: wrong in both
)
TARGET = (
    [0.0, 0, 0, 9, 9.5],  # bus: right in both
    [9.0, 0, 0, 5, 0],  # bus: right among the target's names, taken for cat among all
    [0.0, 9, 0, 5, 0],  # hot dog: right in both, though it is the source's column
    [0.0, 1, 9, 5, 0],  # hot dog: taken for bus, and for car among all
)


def test_scores_of_two_sides_counted_by_hand() -> None:
    got = evaluate.space_scores(
        SPACE, (torch.tensor(SOURCE), torch.tensor([0, 1, 2, 2])), (torch.tensor(TARGET), torch.tensor([0, 0, 1, 1]))
    )
    assert (got["base"], got["new"], got["joint_base"], got["joint_new"]) == (75, 75, 50, 50)
    assert got["H"] == 75 and got["joint_H"] == 50


class Written:
    """A host whose logits are the features: what is predicted is written in the bank."""

    uses_cached_features, device = True, torch.device("cpu")

    def eval(self) -> Written:
        return self

    def image_features(self, batch: Any) -> torch.Tensor:
        return batch.features

    def class_weights(self, names: Any, z: Any = None) -> torch.Tensor:
        return torch.eye(len(names), 5)

    def logits(self, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return z @ w.T


def part(name: str, classes: tuple[str, ...], rows: Any, labels: list[int]) -> tuple[Part, FeatureBank]:
    keys = [f"{name}/{i}" for i in range(len(rows))]
    images = ImageSet([Item("not opened", label, "x", key) for label, key in zip(labels, keys, strict=True)], classes)
    return Part(name, images), FeatureBank(
        torch.tensor(rows)[:, None], torch.tensor(labels), classes, ["x"] * len(rows), keys, {}
    )


def test_rows_confusions_and_classes_of_a_judge() -> None:
    source, first = part("s", ("cat", "hot dog", "car"), SOURCE, [0, 1, 2, 2])
    target, second = part("t", ("bus", "hot dog"), TARGET, [0, 0, 1, 1])
    names = ("cat", "hot dog", "car", "bus", "tram")
    judge = SidesJudge((source, target), names, 3, (SPACE,), (True,), "x")
    tested = Banks((first, second), (first, second))
    host: Any = Written()
    assert judge.measure(host, tested) == {"base": 75.0}
    got = judge.outcome(host, tested)
    own, across = got.rows
    assert (own["dataset"], own["base"], own["new"], own["H"], own["joint_H"]) == ("s", 75, None, None, None)
    assert (across["dataset"], across["base"], across["new"], across["joint_new"]) == ("t", 75, 75, 50)
    assert {(p["true"], p["predicted"], p["true_is"], p["predicted_is"]) for p in got.confusions} == {
        ("bus", "cat", "new", "base"),
        ("hot dog", "car", "new", "base"),
    }
    by_class = {(row["side"], row["class"]): (row["accuracy"], row["joint_accuracy"]) for row in got.per_class}
    assert by_class["base", "car"] == (50, None) and by_class["base", "hot dog"] == (100, None)
    assert by_class["new", "bus"] == (100, 50) and by_class["new", "hot dog"] == (50, 50)
    apart = SidesJudge((source, target), names, 3, (SPACE,), (False,), "x").outcome(host, tested).rows[1]
    assert apart["joint_new"] is None and apart["joint_H"] is None and apart["new"] == 75


# --- means and tests --------------------------------------------------------------------------------------


def row(dataset: str, base: float, new: float | None, seed: int = 1, domain: str = "x", **more: Any) -> dict[str, Any]:
    h = None if new is None else evaluate.harmonic_mean(base, new)
    scores = {**dict.fromkeys(results.METRICS), "base": base, "new": new, "H": h}
    return {
        "dataset": dataset,
        "domain": domain,
        "host": "coop",
        "ogen": False,
        "seed": seed,
        **scores,
        "seconds": 1.0,
        **more,
    }


def test_the_average_has_both_conventions_of_h() -> None:
    rows = [row("a", 80, 20), row("b", 40, 60), row("a", 60, 60, domain="y")]
    (mean,) = results.average_rows(rows, "datasets")  # b was not tested in y
    assert (mean["dataset"], mean["domain"], mean["base"], mean["new"]) == ("average", "x", 60, 40)
    assert mean["H"] == pytest.approx((32 + 48) / 2) and mean["joint_H"] is None
    (entry,) = results.summarize([mean])
    assert entry["H"][0] == pytest.approx(40) and entry["H_of_means"] == pytest.approx(48)
    (whole,) = results.average_rows(rows, "all")
    assert whole["domain"] == "" and whole["base"] == 60 and whole["new"] == pytest.approx(140 / 3)
    assert results.average_rows(rows, "") == []


def test_methods_over_shots_stand_in_the_order_of_the_results() -> None:
    names = ["coop", "zero_shot", *(f"method-{letter}" for letter in "fdbeca")]
    rows = [row("a", 50, None, host=name, shots=shots) for name in names for shots in (1, 2)]
    document = {"summary": results.summarize(rows), "protocol": {"home_domain": "x"}}
    page = shots_section(document)
    assert page is not None
    places = [page.rindex(label(Variant(name))) for name in ["zero_shot", "coop", *names[2:]]]
    assert places == sorted(places)


def test_summary_and_tests_keep_datasets_and_shots_apart() -> None:
    rows = [row("a", 50 + shots, None, seed, shots=shots) for shots in (1, 2) for seed in (1, 2)]
    rows += [{**r, "host": "zero_shot", "base": 50.0} for r in rows]
    assert [(e["host"], e["shots"], e["base"][0]) for e in results.summarize(rows)] == [
        ("coop", 1, 51),
        ("coop", 2, 52),
        ("zero_shot", 1, 50),
        ("zero_shot", 2, 50),
    ]
    tests = results.all_tests(rows)
    assert [(t["dataset"], t["shots"], t["metric"], t["difference"], t["n"]) for t in tests] == [
        ("a", 1, "base", 1, 2),
        ("a", 2, "base", 2, 2),
    ]


# --- plans ------------------------------------------------------------------------------------------------


def test_every_protocol_declares_itself() -> None:
    assert list(PROTOCOLS) == sorted(PROTOCOLS) and "base-to-new" in PROTOCOLS
    for name, info in PROTOCOLS.items():
        assert info.name == name and info.about
        assert info.plan.__module__ == f"ogenlib.bench.protocols.{name.replace('-', '_')}"
        assert set(info.takes) <= {*OPTIONS, NO_TARGETS}
        assert info.shown.sections == tuple(section for section in SECTIONS if section in info.shown.sections)
    assert tuple(LISTED) == LISTINGS


def test_cross_dataset_tests_no_image_that_was_trained_on() -> None:
    made = plan(small(protocol="cross-dataset"))
    trained = set(made.source.train.keys)
    assert made.parts[0].dataset == "emoji-categories" and len(made.parts) == 9
    assert not any(trained & set(p.images.keys) for p in made.parts)
    assert {d for p in made.parts for d in p.images.domains} == {"noto"}
    animals = next(c for c in made.card["targets"] if c["dataset"] == "emoji-concepts/animals-nature")
    assert animals["names_shared_with_the_source"] == 3 and animals["images_left_out_because_trained_on"] > 0
    assert len(set(made.known) & set(made.new)) == 0 and {"bird", "bug", "cat face"} <= set(made.known)
    group = plan(small(protocol="cross-dataset", dataset="emoji-concepts/objects"))
    assert len(group.parts) == 8 and group.parts[0].dataset == "emoji-concepts/objects"


def test_domain_generalization_tests_every_icon_set() -> None:
    made = plan(small(protocol="domain-generalization"))
    assert set(made.source.train.domains) == {"noto"} and made.home == "noto" and made.new == ()
    domains = [set(p.images.domains) for p in made.parts]
    assert domains[0] == {"noto"} and len(domains) == 12 and all(len(d) == 1 for d in domains)
    assert len(made.known) == 51 == len(load_dataset("emoji-categories").classnames)
    other = plan(small(protocol="domain-generalization", train_domain="openmoji", targets=("noto", "twemoji")))
    assert [p.images.domains[0] for p in other.parts] == ["openmoji", "noto", "twemoji"]


def test_few_shot_trains_all_names() -> None:
    made = plan(small(protocol="few-shot"))
    assert made.shots == SHOTS_LIST == (1, 2, 4, 8, 16) and len(made.known) == 51 and made.new == ()
    split = base_new_split(made.known)
    assert plan(small()).known == split.base and plan(small()).new == split.new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "few-shot", "shots_list": (0, 2)}, "numbers of 1 or more"),
        ({"protocol": "few-shot", "shots_list": (2, 2)}, "each once"),
        ({"shots_list": (1, 2)}, "for --protocol few-shot; base-to-new takes --shots"),
        ({"targets": ("noto",)}, "for --protocol cross-dataset and domain-generalization and domain-shift"),
        ({"train_domain": "noto"}, "is for --protocol domain-generalization"),
        ({"suite": "coop12"}, "'coop12' is unknown; known are coop11, emoji8"),
        ({"suite": "coop11"}, "pass --root DIR"),
        ({"suite": "emoji8", "root": "/data"}, "leave --root out"),
        ({"suite": "emoji8", "targets": ("noto",)}, "noto is not in the suite emoji8"),
        ({"suite": "emoji8", "protocol": "cross-dataset"}, "with --dataset in place of --suite"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "cross-dataset", "targets": ("emoji-categories",)}, "leave it out"),
        ({"protocol": "cross-dataset", "targets": ("emoji-concept",)}, "Did you mean"),
        ({"protocol": "domain-generalization", "dataset": "emoji-concepts/objects"}, "take emoji-categories"),
        ({"protocol": "domain-shift", "targets": ("notos",)}, "must name icon sets"),
        ({"protocol": "domain-shift", "targets": ("noto",)}, "leave it out"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(small(**changes))


# --- published layouts ------------------------------------------------------------------------------------


def folder(root: Path, split_names: dict[str, tuple[str, ...]]) -> Path:
    """A data set of folders: split/class/image.png."""
    from PIL import Image

    for split, names in split_names.items():
        for n, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (80 * n, 80 * i, 40)).save(root / split / name / f"{i}.png")
    return root


def test_targets_from_disk_share_names_or_have_some_of_their_own(tmp_path: Path) -> None:
    classes = ("cat", "dog", "hot dog")
    source = folder(tmp_path / "source", {"train": classes, "test": classes})
    variant = folder(tmp_path / "variant", {"test": ("dog", "Hot_dog"), "train": ("dog", "Hot_dog")})
    other = folder(tmp_path / "other", {"test": ("dog", "tram"), "train": ("dog", "tram")})
    strange = folder(tmp_path / "strange", {"test": ("bus", "tram"), "train": ("bus", "tram")})
    config = small(protocol="domain-generalization", dataset=str(source), targets=(str(variant), str(other)))
    judge = plan(config).judge
    assert isinstance(judge, SidesJudge) and judge.joint == (True, False) and judge.names == (*classes, "tram")
    assert judge.spaces[0].new == (2, 1) or judge.spaces[0].new == (1, 2)
    with pytest.raises(ValueError, match=r"none of the names of .*cross-dataset"):
        plan(small(protocol="domain-generalization", dataset=str(source), targets=(str(strange),)))
    with pytest.raises(ValueError, match="--targets"):
        plan(small(protocol="domain-generalization", dataset=str(source)))
    with pytest.raises(ValueError, match="--targets"):
        plan(small(protocol="cross-dataset", dataset=str(source)))
    crossed = plan(small(protocol="cross-dataset", dataset=str(source), targets=(str(strange),)))
    assert crossed.new == ("bus", "tram") and crossed.card["targets"][0]["names_shared_with_the_source"] == 0


# --- whole runs -------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "cross-dataset": {"targets": ("emoji-concepts/activities",), "ogen": "both", "ogen_settings": QUICK, "views": 2},
    "domain-generalization": {"targets": ("openmoji", "twemoji")},
    "few-shot": {"shots_list": (1, 2), "test_domains": ("noto",), "seeds": (1, 2)},
}


@pytest.fixture(scope="module", params=RUNS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp(request.param)
    run_bench(small(protocol=request.param, **RUNS[request.param]), out)
    return request.param, out


def test_a_run_of_every_protocol(finished: tuple[str, Path]) -> None:
    name, out = finished
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    card, rows = document["protocol"], document["rows"]
    assert document["schema"] == results.SCHEMA and card["name"] == name
    assert card["trained_on"].startswith("all 51 names of emoji-categories")
    keys = {"dataset", "domain", "host", "ogen", "seed", *results.METRICS, "epochs", "seconds"}
    assert all(keys <= set(r) for r in rows)
    own = [r for r in rows if (r["dataset"], r["domain"]) == ("emoji-categories", "noto")]
    assert own and all(r["new"] is None and r["H"] is None and r["base"] > 20 and r["ece_base"] >= 0 for r in own)
    others = [r for r in rows if r not in own]
    places = {(r["dataset"], r["domain"]) for r in others}
    if name == "few-shot":
        assert not others and [r["shots"] for r in own] == [1, 1, 1, 1, 2, 2, 2, 2]
        assert card["shots_list"] == [1, 2] and {t["shots"] for t in document["tests"]} == {1, 2}
    elif name == "domain-generalization":
        assert places == {("emoji-categories", "openmoji"), ("emoji-categories", "twemoji")}
        assert all((r["joint_base"], r["joint_new"]) == (r["base"], r["new"]) for r in others)
    else:
        assert places == {("emoji-concepts/activities", "noto")}
        assert all(r["joint_base"] <= r["base"] and r["joint_new"] <= r["new"] for r in others)
        assert card["new_names_known_in_training"] and document["projection"]
    if others:
        mean = document["summary"][0]
        assert mean["dataset"] == "average"
        zero = [r["new"] for r in others if r["host"] == "zero_shot"]
        assert mean["new"][0] == pytest.approx(sum(zero) / len(zero)) and mean["H_of_means"]
    lines = summary_text(document).splitlines()
    assert sum(line.startswith("zero_shot") for line in lines) == {"domain-generalization": 4}.get(
        name, 3 if others else 1
    )


def test_the_report_of_every_protocol(finished: tuple[str, Path]) -> None:
    name, out = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not [word for word in ("None", "nan", "0 new names") if f">{word}<" in page]
    if name == "few-shot":
        assert "Accuracy by number of training images" in page and "on the test images" in page
        assert "1, 2 images per class" in page
    elif name == "cross-dataset":
        assert "on the dataset of training" in page and "on the targets" in page
        assert "Summary on the mean of 1 target<" in page
    else:
        assert "on the shifted domains" in page and "the mean of 2 targets" in page
    assert build_report(json.loads((out / "results.json").read_text())) == page


def test_finished_cells_are_not_trained_again(finished: tuple[str, Path]) -> None:
    name, out = finished
    before = {p.name: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    if name == "few-shot":  # another number of shots leaves the others alone
        (out / "cells" / "taskres-2shots-seed1.json").unlink()
        before.pop("taskres-2shots-seed1.json")
    rows = json.loads((out / "results.json").read_text())["rows"]
    again = run_bench(small(protocol=name, **RUNS[name]), out)["rows"]
    after = {p.name: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    assert {k: after[k] for k in before} == before
    assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in rows]

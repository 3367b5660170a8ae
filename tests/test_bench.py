"""Benchmarks with OGEN: which runs there are, what the document says of them, and that a killed one goes on."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ogen import base_to_new
from ogenlib.bench.protocols import base_to_new as protocol
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.data import BaseNewSplit, FeatureBank, base_new_split, few_shot, load_dataset
from ogenlib.evaluate import episodic_constant
from ogenlib.evaluate import scores as evaluate
from ogenlib.generators import stacking_curve
from ogenlib.hosts import build
from ogenlib.ogen.config import settings_for
from ogenlib.ogen.wrapper import OGEN
from ogenlib.report.plots import lines as plots
from ogenlib.runs.saved import load_run
from ogenlib.utils.variant import CONTROLS, Variant

pytestmark = pytest.mark.slow

QUICK = {"iterations": 10, "per_class": 8, "rows": 8}  # of the generator, for tests that do not look at accuracy


def config(**changes: Any) -> BenchConfig:
    return BenchConfig(**{"epochs": 2, "ogen_settings": QUICK, **changes}).smoke()


def who(rows: list[dict[str, Any]]) -> set[tuple[str, bool]]:
    return {(r["host"], r["ogen"]) for r in rows}


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of CoOp without and with OGEN."""
    out = tmp_path_factory.mktemp("bench")
    run_bench(config(), out)
    return out


@pytest.fixture()
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same, for a test that changes it."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture()
def results(finished: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    return document


# --- which runs -------------------------------------------------------------------------------------------


def test_variants() -> None:
    zero, coop, coop_ogen, kgcoop, kgcoop_ogen = (
        Variant("zero_shot"),
        Variant("coop"),
        Variant("coop", True),
        Variant("kgcoop"),
        Variant("kgcoop", True),
    )
    hosts = ("coop", "zero_shot", "kgcoop", "coop")
    assert BenchConfig(hosts=hosts).variants() == (zero, coop, coop_ogen, kgcoop, kgcoop_ogen)
    assert BenchConfig(hosts=hosts, ogen="yes").variants() == (zero, coop_ogen, kgcoop_ogen)
    assert BenchConfig(hosts=hosts, ogen="no").variants() == (zero, coop, kgcoop)
    assert BenchConfig(hosts=("zero_shot",)).variants() == (zero,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ogen": "maybe"}, "must be one of both, yes, no"),
        ({"ogen": "yes", "hosts": ("zero_shot",)}, "takes OGEN.*coop"),
        ({"ogen": "no", "held_out": True}, "held-out names"),
        ({"ogen": "no", "preset": "paper"}, "--no-ogen"),
        ({"preset": "papers"}, "preset 'papers' is unknown; known are ogenlib"),
        ({"ogen_settings": {"itterations": 3}}, "did you mean 'iterations'"),
        ({"ogen_settings": {"rows": 0}}, "rows=0"),
        ({"ogen_settings": {"generator": "joined"}}, "'joined': must be one of None, joint"),
        ({"ogen_settings": {"heads": 0}}, "heads=0"),
        ({"controls": "some"}, "controls='some': must be one of none, zero-shot, all"),
        ({"controls": "all", "ogen": "yes"}, "of hosts without OGEN, and none is run .--ogen"),
        ({"controls": "zero-shot", "hosts": ("zero_shot",)}, "none of zero_shot takes OGEN"),
        ({"controls": "zero-shot", "protocol": "few-shot"}, "is for --protocol base-to-new and cross-dataset"),
        ({"measure_every": 0}, "measure_every=0: must be 1 or more"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchConfig(**changes)


def test_hosts_are_made_for_the_unknown_names_where_they_ask_for_them(copied: Path) -> None:
    both = run_bench(config(hosts=("taskres",)), copied)["protocol"]["hosts"]
    new = both["taskres+ogen"]["ogen"]["other_names"]
    assert new and both["taskres+ogen"]["extra_names"] == new and not both["taskres"]["extra_names"]


def test_few_known_names_have_fewer_neighbours() -> None:
    assert settings_for("ogenlib", {"rows": 5}, 26) == {"rows": 5}
    assert settings_for("ogenlib", {}, 4) == {}
    assert settings_for("ogenlib", {}, 3) == {"k": 2}
    assert settings_for("released-code", {}, 1) == {"generator": None, "joint": False, "warmup": 0.0}
    assert settings_for("ogenlib", {"k": 7}, 3) == {"k": 7}  # asked for: OGEN says that it cannot be
    assert settings_for("zero-shot-kl", {}, 1) == {}


# --- the document -----------------------------------------------------------------------------------------


def test_every_part_of_the_document_tells_ogen_from_its_host(results: dict[str, Any]) -> None:
    three = {("zero_shot", False), ("coop", False), ("coop", True)}
    for part in ("rows", "summary", "confusions", "per_class"):
        assert who(results[part]) == three, part
    assert who(results["curves"]) == three - {("zero_shot", False)}
    assert {(t["a"], t["b"]) for t in results["tests"]} == {
        ("coop", "zero_shot"),
        ("coop+ogen", "coop"),
        ("coop+ogen", "coop+zero-shot"),
        ("coop+ogen", "zero_shot"),
    }
    ends = {c["ogen"]: (c["base"][-1], c["new"][-1]) for c in results["curves"]}
    for ogen, end in ends.items():
        own = Variant("coop", ogen)
        (row,) = (r for r in results["rows"] if Variant.of(r) == own and r["domain"] == "noto")
        assert (row["base"], row["new"]) == pytest.approx(end)
        assert row["epochs"] == 2 and row["seconds"] > 0


def test_the_card_says_what_ogen_was_and_was_given(results: dict[str, Any], finished: Path) -> None:
    card = results["protocol"]
    assert card["new_names_known_in_training"] is True
    assert set(card["hosts"]) == {"zero_shot", "coop", "coop+ogen"} and "ogen" not in card["hosts"]["coop"]
    ogen = card["hosts"]["coop+ogen"]["ogen"]
    assert (
        ogen["preset"] == "ogenlib"
        and ogen["settings"]["iterations"] == 10
        and ogen["new_names_known_in_training"] is True
    )
    for name, known in (("coop", False), ("coop+ogen", True)):
        run = json.loads((finished / "runs" / f"{name}-seed1" / "run.json").read_text(encoding="utf-8"))
        assert run["extra"]["protocol"]["new_names_known_in_training"] is known
    assert (finished / "runs" / "coop+ogen-seed1" / "generator.safetensors").is_file()
    host = load_run(finished / "runs" / "coop+ogen-seed1")
    assert host.info.name == "coop" and isinstance(host, OGEN) and host.names_known


def test_a_saved_run_with_ogen_scores_as_in_the_table(results: dict[str, Any], finished: Path) -> None:
    (path,) = (finished / "banks").glob("*.safetensors")
    new = {r["class"]: None for r in results["per_class"] if r["side"] == "new"}
    model = load_run(finished / "runs" / "coop+ogen-seed1")
    found = evaluate.base_to_new(model, FeatureBank.load(path), BaseNewSplit(model.names, tuple(new))).domains
    for row in results["rows"]:
        if Variant.of(row) == Variant("coop", True):
            assert {k: row[k] for k in found[row["domain"]]} == pytest.approx(found[row["domain"]])


def test_the_projection_shows_new_names(results: dict[str, Any], finished: Path) -> None:
    (entry,) = results["projection"]
    assert (entry["host"], entry["ogen"], entry["domain"]) == ("coop", True, "noto")
    new = {r["class"] for r in results["per_class"] if r["side"] == "new"}
    assert set(entry["classes"]) <= new and entry["variant"]
    kinds = [p["kind"] for p in entry["points"]]
    assert kinds.count("synthesized") == 60 * len(entry["classes"]) and "real" in kinds and "text" in kinds
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Filled dots are their real test images" in page and "made from the names alone" in page


def test_only_with_ogen_and_only_without(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    only = run_bench(config(ogen="yes"), copied)
    assert who(only["rows"]) == {("zero_shot", False), ("coop", True)} and len(only["projection"]) == 1
    none = run_bench(config(ogen="no", ogen_settings={}), copied)
    assert who(none["rows"]) == {("zero_shot", False), ("coop", False)} and none["projection"] == []
    assert none["protocol"]["new_names_known_in_training"] is False
    # OGEN's settings decide OGEN's cells alone; nothing was trained again.
    assert {path: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()} == before


def test_held_out_names(copied: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    document = run_bench(config(held_out=True), copied)
    card = document["protocol"]
    assert card["new_names_known_in_training"] is False
    ogen = card["hosts"]["coop+ogen"]["ogen"]
    assert ogen["new_names_known_in_training"] is False and ogen["other_names"] == []
    assert len(document["projection"]) == 1  # made after training
    after = {path.name: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"coop+ogen-seed1.json"}
    assert "The new names were held out" in (copied / "report.html").read_text(encoding="utf-8")


def test_a_warm_up_without_the_hosts_loss_leaves_the_curve_whole(copied: Path) -> None:
    document = run_bench(
        config(epochs=3, ogen="yes", preset="released-code", ogen_settings={**QUICK, "warmup": 0.4}), copied
    )
    (curve,) = document["curves"]
    assert curve["epoch"] == [1, 2, 3] and len(curve["base"]) == 3 and None not in curve["new"]
    assert curve["ce"][0] is None and curve["ce"][2] > 0


def test_a_curve_may_have_fewer_points_than_epochs(copied: Path) -> None:
    (curve,) = run_bench(config(epochs=4, ogen="no", ogen_settings={}, measure_every=3), copied)["curves"]
    assert [base is not None for base in curve["base"]] == [False, False, True, True]
    assert None not in curve["ce"]
    assert plots.mean_curve([curve]).epochs == (3, 4)


@pytest.mark.parametrize(
    ("every", "epochs", "cached", "expected"),
    [(None, 3, True, [1, 2, 3]), (None, 25, False, [3, 6, 9, 12, 15, 18, 21, 24, 25]), (None, 4, False, [1, 2, 3, 4]),
     (9, 4, True, [4])],
)  # fmt: skip
def test_when_a_host_is_measured(every: int | None, epochs: int, cached: bool, expected: list[int]) -> None:
    found = BenchConfig(epochs=epochs, measure_every=every)
    assert [e for e in range(1, epochs + 1) if found.measured(e, cached)] == expected


# --- controls ---------------------------------------------------------------------------------------------


def test_a_control_is_made_of_the_hosts_logits_and_zero_shots(results: dict[str, Any], finished: Path) -> None:
    (path,) = (finished / "banks").glob("*.safetensors")
    host = load_run(finished / "runs" / "coop-seed1")
    data = load_dataset("emoji-categories")
    split = base_new_split(data.classnames)
    names, known = (*split.base, *split.new), len(split.base)
    zero = build("zero_shot", host.clip, split.base, templates=list(data.templates))
    test = FeatureBank.load(path).select(names)
    own, other = (evaluate.predict_logits(one, test, names) for one in (host, zero))
    shots = few_shot(data.train, 4, 1).of_classes(split.base)
    train = FeatureBank.extract(host.clip, shots, views=2, seed=1).select(split.base)
    seen, unseen = (evaluate.predict_logits(one, train, split.base) for one in (host, zero))
    for control, logits, unknown in (
        ("", own, seen),
        ("zero-shot", torch.cat([own[:, :known], other[:, known:]], dim=1), unseen),
    ):
        constant = episodic_constant(seen, unknown, train.labels, torch.Generator().manual_seed(1))
        found = evaluate.split_scores(logits, test, split, constant).domains
        rows = [row for row in results["rows"] if Variant.of(row) == Variant("coop", control=control)]
        assert {row["domain"] for row in rows} == set(found)
        for row in rows:
            assert {k: row[k] for k in found[row["domain"]]} == pytest.approx(found[row["domain"]], abs=1e-3)
            assert row["constant"] == pytest.approx(constant, abs=1e-4)
        inside = torch.tensor([domain == "noto" for domain in test.domains])
        curve = stacking_curve(logits[inside], test.labels[inside], known)
        (kept,) = (one for one in results["stacking"] if Variant.of(one) == Variant("coop", control=control))
        assert kept["zero"] == pytest.approx(curve.at(0.0)) and len(kept["base"]) <= 60
        assert kept["zero"] == pytest.approx([rows[0]["joint_base"], rows[0]["joint_new"]])
    assert evaluate.JOINT[-2:] == ("ausuc", "gate_auroc")


def test_all_controls_train_with_kl_besides_and_none_shows_none(copied: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    every = run_bench(config(controls="all"), copied)
    after = {path.name: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"coop+KL-seed1.json"}
    coop = [Variant("coop"), *(Variant("coop", control=control) for control in CONTROLS), Variant("coop", True)]
    assert list(dict.fromkeys(map(Variant.of, every["rows"]))) == [Variant("zero_shot"), *coop]
    assert (
        set(map(Variant.of, every["summary"]))
        == set(map(Variant.of, every["stacking"]))
        == {coop[0], *coop} | {Variant("zero_shot")}
    )
    assert set(map(Variant.of, every["curves"])) == {coop[0], coop[2], coop[4]}  # trainings
    ogen = every["protocol"]["hosts"]["coop+KL"]["ogen"]
    assert (ogen["preset"], ogen["settings"]["zero_shot_kl"], ogen["settings"]["generator"]) == (
        "zero-shot-kl", 0.3, None,
    )  # fmt: skip
    assert {t["b"] for t in every["tests"] if t["a"] == "coop+ogen"} == {"zero_shot", *(one.name for one in coop[:4])}
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "CoOp + KL, zero-shot for new names" in page and "Base against new on noto" in page
    none = run_bench(config(controls="none"), copied)
    assert not [part for part in ("rows", "stacking") for one in none[part] if one.get("control")]
    alone = run_bench(config(ogen="no", ogen_settings={}), copied)
    assert not [row for row in alone["rows"] if row.get("control")]


# --- going on ---------------------------------------------------------------------------------------------


def test_a_bench_killed_in_ogens_training_goes_on_to_the_same_end(
    finished: Path, copied: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (copied / "cells" / "coop+ogen-seed1.json").unlink()
    (copied / "results.json").unlink()
    asked = []

    def killed(host: Any, *rest: Any) -> Any:
        asked.append(host)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return evaluate.base_to_new(host, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(protocol, "evaluate", type("Dying", (), {"base_to_new": staticmethod(killed)}))
        with pytest.raises(KeyboardInterrupt):
            run_bench(config(), copied)
    assert all(isinstance(host, OGEN) for host in asked) and not (copied / "results.json").exists()
    with caplog.at_level("INFO", logger="ogenlib"):
        again = run_bench(config(), copied)
    assert "after epoch 1" in caplog.text
    assert without_times(again["rows"]) == without_times(results["rows"])
    for part in ("curves", "projection", "per_class"):
        assert again[part] == results[part]
    assert not list((copied / "cells").glob("*.partial"))


# --- README's picture -------------------------------------------------------------------------------------


def test_the_picture_is_drawn_with_and_without_ogen(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert list(base_to_new.curves(results)) == ["CoOp", "CoOp + OGEN"]
    base_to_new.draw(results, tmp_path / "both.png")
    plain = {**results, "curves": [c for c in results["curves"] if not c["ogen"]]}
    base_to_new.draw(plain, tmp_path / "plain.png")
    both, one = ((tmp_path / name).read_bytes() for name in ("both.png", "plain.png"))
    assert both[:8] == one[:8] == b"\x89PNG\r\n\x1a\n" and both != one
    assert "no image of them" in base_to_new.title(results["protocol"], with_ogen=True)
    with pytest.raises(ValueError, match="no curves of coop"):
        base_to_new.draw({**results, "curves": []}, tmp_path / "none.png")


def test_labels_of_the_picture_do_not_cover_each_other() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=150)
    axes = figure.add_subplot()
    axes.set_ylim(40, 70)
    heights = (53.4, 53.5, 53.4, 54.9, 54.8, 69.9)
    base_to_new.write_labels(axes, [(h, f"CoOp + OGEN, base names  {h}", "#000000", "bold") for h in heights])
    middles = sorted(axes.transData.transform((0, text.xyann[1]))[1] for text in axes.texts)
    line = 9.5 * 150 / 72  # of type, in pixels
    assert len(middles) == 6 and all(b - a > line for a, b in pairwise(middles))

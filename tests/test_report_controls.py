"""Controls in tables, in the report and on the terminal: what OGEN adds is said over the best of them."""

from __future__ import annotations

import copy
import json
import re
import sys
from typing import Any

import pytest
from test_report import Collector, fake_results, text_of

from benchmarks.common.markdown import named
from benchmarks.common.places import RESULTS
from ogenlib.report.format import label
from ogenlib.report.page import build_report
from ogenlib.report.plots.stacking import mean_stacked
from ogenlib.report.text import summary_text
from ogenlib.results import read_results, tables
from ogenlib.results.types import COMPETING_METRICS, METRICS
from ogenlib.utils.documents import write_document
from ogenlib.utils.variant import CONTROLS, Variant

SEEDS = (1, 2, 3)
ALONE, OGEN, ZERO = Variant("coop"), Variant("coop", True), Variant("zero_shot")
FREE, KL, BOTH = (Variant("coop", control=control) for control in CONTROLS)
# H, joint H and AUSUC.
LEVELS = {
    ZERO: (50.0, 40.0, 30.0), ALONE: (55.0, 42.0, 31.0), FREE: (56.0, 44.0, 32.0), KL: (57.0, 43.0, 31.5),
    BOTH: (56.5, 43.5, 33.0),
}  # fmt: skip


@pytest.fixture()
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed; drawing takes most of the time of a report."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def document(ogen: tuple[float, float, float], seeds: tuple[int, ...] = SEEDS, host: str = "coop") -> dict[str, Any]:
    """As `ogen bench` writes one: OGEN at these levels, differing a little from seed to seed."""
    rows = []
    levels = {v._replace(host=v.host.replace("coop", host)): level for v, level in {**LEVELS, OGEN: ogen}.items()}
    for variant, (h, joint, area) in levels.items():
        for seed in seeds:
            noise = 0.0 if variant == ZERO else 0.1 * seed * (2 if variant.ogen else 1)
            own = {"H": h + noise, "joint_H": joint + noise, "ausuc": area + noise}
            scores = dict.fromkeys((*METRICS, *COMPETING_METRICS), 50.0) | own
            rows.append({"dataset": "d", "domain": "x", **variant.fields, "seed": seed, "seconds": 1.0, **scores})
    curve = {"dataset": "d", "domain": "x", "base": [60.0, 30.0, 0.0], "new": [0.0, 40.0, 50.0], "zero": [50.0, 20.0]}
    stacking = [{**curve, **variant.fields, "seed": seed, "constant": 0.5, "chosen": [40.0, 30.0]}
                for variant in levels for seed in seeds]  # fmt: skip
    return {
        "schema": "ogenlib.results/1",
        "protocol": {"name": "base-to-new", "dataset": "d", "train_domains": ["x"], "home_domain": "x"},
        "rows": rows,
        "summary": tables.summarize(rows),
        "tests": tables.paired_tests(rows, "x"),
        "stacking": stacking,
    }


def lead(page: str) -> str:
    found = re.search(r'<p class="lead">(.*?)</p>', page)
    return found[1] if found else ""


def test_names_of_variants() -> None:
    for variant in (ALONE, OGEN, FREE, KL, BOTH):
        assert Variant.named(variant.name) == variant == Variant.of(variant.fields)
    assert [v.name for v in (ALONE, OGEN, FREE, BOTH)] == ["coop", "coop+ogen", "coop+zero-shot", "coop+KL, zero-shot"]
    assert [label(v) for v in (OGEN, FREE, KL, BOTH)] == [
        "CoOp + OGEN", "CoOp, zero-shot for new names", "CoOp + KL", "CoOp + KL, zero-shot for new names",
    ]  # fmt: skip
    assert "control" not in ALONE.fields and Variant.named("coop + OGEN") == OGEN
    assert named("coop", control="KL, zero-shot") == "CoOp + KL, zero-shot for new names"


def test_controls_have_rows_of_their_own_and_are_what_ogen_is_tested_against() -> None:
    whole = document((58.0, 45.0, 34.0))
    assert list(map(Variant.of, whole["summary"])) == [*LEVELS, OGEN]
    pairs = {(t["a"], t["b"]) for t in whole["tests"]}
    assert {b for a, b in pairs if a == "coop+ogen"} == {"zero_shot", *(v.name for v in (ALONE, FREE, KL, BOTH))}
    assert {a for a, _ in pairs} == {"coop", "coop+ogen"} and {t["metric"] for t in whole["tests"]} >= {"ausuc"}
    mean = tables.average_rows([*whole["rows"], *({**r, "dataset": "e"} for r in whole["rows"])], "datasets")
    assert len(mean) == 6 * len(SEEDS) and {r["ausuc"] for r in mean if Variant.of(r) == ZERO} == {30.0}


@pytest.mark.parametrize(
    ("ogen", "seeds", "sentence"),
    [
        ((58.0, 46.0, 34.0), (1,), "OGEN adds 1.1 points of H over CoOp + KL; 2.1 of joint H over CoOp, zero-shot for "
         "new names; 1.1 of AUSUC over CoOp + KL, zero-shot for new names."),
        ((56.0, 43.0, 32.0), (1,), "OGEN does not beat its best controls: H −0.9 against CoOp + KL; joint H −0.9 "
         "against CoOp, zero-shot for new names; AUSUC −0.9 against CoOp + KL, zero-shot for new names."),
        ((58.0, 43.0, 32.0), (1,), "OGEN adds 1.1 points of H over CoOp + KL, and does not beat its best controls "
         "elsewhere: joint H −0.9 against CoOp, zero-shot for new names; AUSUC"),
        ((58.0, 46.0, 34.0), SEEDS, "OGEN adds 1.2 points of H (p 0.002) over CoOp + KL; 2.2 of joint H (p "),
        ((58.0, 46.0, 34.0), (1, 2), "OGEN adds 1.1 points of H over"),  # two seeds are too few for a p-value
    ],
)  # fmt: skip
def test_the_finding_is_said_over_the_best_control(
    no_plots: None, ogen: tuple[float, float, float], seeds: tuple[int, ...], sentence: str
) -> None:
    assert sentence in lead(build_report(document(ogen, seeds)))


def test_one_best_control_is_named_once(no_plots: None) -> None:
    whole = document((58.0, 43.0, 34.0), (1,))
    kept = (ZERO, FREE, OGEN)
    for part in ("rows", "summary"):
        whole[part] = [one for one in whole[part] if Variant.of(one) in kept]
    assert lead(build_report(whole)) == (
        "OGEN adds 2.1 points of H and 2.1 of AUSUC over its best control (CoOp, zero-shot for new names), and does "
        "not beat it elsewhere: joint H −0.9."
    )


def test_several_hosts_have_a_sentence_each(no_plots: None) -> None:
    first, second = document((58.0, 46.0, 34.0)), document((50.0, 40.0, 30.0), host="taskres")
    both = first | {part: first[part] + second[part] for part in ("rows", "summary", "tests", "stacking")}
    text = text_of(build_report(both))
    assert "CoOp + OGEN adds 1.2" in text and "TaskRes + OGEN does not beat its best controls: H" in text


def test_without_controls_nothing_is_said_of_them(no_plots: None) -> None:
    assert lead(build_report(fake_results())) == ""


def test_the_report_has_the_picture_and_the_columns() -> None:
    pytest.importorskip("matplotlib")
    page = build_report(document((58.0, 46.0, 34.0)))
    assert not Collector(page).open
    part = page.split("Base against new on x")[1].split("<section>")[0]
    assert part.count("<svg role") == 1 and "joint accuracy on base against on new" in part
    assert all(label(variant) in part for variant in (*LEVELS, OGEN))
    several = document((58.0, 46.0, 34.0))
    several["stacking"] += document((50.0, 40.0, 30.0), host="taskres")["stacking"]
    page = build_report(several)
    part = page.split("Base against new on x")[1].split("<section>")[0]
    assert part.count("<svg role") == 2 and not Collector(page).open  # more lines than colours: a picture a host
    text = text_of(page)
    assert "calibrated AUSUC Gate AUROC" in text and "Gate AUROC how well" in text


def earlier(results: dict[str, Any]) -> dict[str, Any]:
    """Results as they were before there were controls, their measures and curves."""
    old = {key: value for key, value in results.items() if key != "stacking"}
    for part in ("rows", "summary", "tests", "curves", "confusions", "per_class"):
        kept = [item for item in old.get(part, []) if not item.get("control") and item.get("metric") != "ausuc"]
        kept = [item for item in kept if "KL" not in f"{item.get('a')} {item.get('b')}"]
        old[part] = [{k: v for k, v in item.items() if k not in (*COMPETING_METRICS, "constant")} for item in kept]
    return old


def test_old_documents_have_neither_picture_nor_columns(no_plots: None, tmp_path: Any) -> None:
    old = earlier(json.loads((RESULTS / "emoji-categories.json").read_text(encoding="utf-8")))
    text = text_of(build_report(old))
    assert "AUSUC" not in text and "Base against new" not in text and "with OGEN it" in text
    assert "AUSUC" not in summary_text(old)
    new = copy.deepcopy(document((58.0, 46.0, 34.0)))
    write_document(tmp_path / "results.json", new)
    assert read_results(tmp_path / "results.json")["stacking"] == new["stacking"]


def test_the_terminal_has_a_line_for_every_control_within_a_hundred_columns() -> None:
    lines = summary_text(document((58.0, 46.0, 34.0))).splitlines()
    assert lines[0].split() == ["method", "base", "new", "H", "joint", "H", "calibrated", "AUSUC"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "zero_shot", "coop", "coop, zero-shot", "coop + KL", "coop + KL, zero-shot", "coop + OGEN",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 100


def test_the_mean_curve_of_seeds_lies_between_them() -> None:
    low = {"base": [40.0, 40.0, 0.0], "new": [0.0, 20.0, 20.0], "zero": [40.0, 10.0]}
    high = {"base": [60.0, 60.0, 0.0], "new": [0.0, 30.0, 30.0], "zero": [60.0, 20.0], "chosen": [1.0, 2.0]}
    mean = mean_stacked([low, high])
    assert mean is not None and mean.zero == (50.0, 15.0) and mean.chosen is None
    assert mean.curve[0] == (50.0, 0.0) and mean.curve[-1] == (0.0, 25.0)
    assert max(mean.curve, key=lambda point: point[0] + point[1]) == pytest.approx((50.0, 25.0))  # the corner
    assert mean_stacked([{}, {"base": [1.0], "new": [None]}]) is None

"""What the report says where OGEN is on."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
from test_report import Collector, fake_results, text_of, with_means

from ogenlib.report.page import build_report
from ogenlib.report.plots import lines as plots


@pytest.fixture()
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed; drawing takes most of the time of a report."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.parametrize(
    ("known", "ogen", "sentence"),
    [
        (True, True, "Training with OGEN was given the 25 new names but no image of them; training without OGEN was"),
        (False, True, "The new names were held out: no training was given them"),
        (True, False, ""),
        (None, True, ""),
    ],
)
def test_the_top_says_whether_new_names_were_known(no_plots: None, known: Any, ogen: bool, sentence: str) -> None:
    document = with_means(30.0, 18.0, ogen=ogen)
    document["protocol"] |= {"new_names_known_in_training": known, "n_new": 25}
    top = text_of(build_report(document)).split("Summary on")[0]
    assert sentence in top
    assert ("was given" in top) is bool(sentence)


def test_without_new_names_nothing_is_said_of_them(no_plots: None) -> None:
    document = with_means(30.0, 18.0, ogen=True)
    document["protocol"] |= {"new_names_known_in_training": False, "n_new": 0}
    assert "held out" not in text_of(build_report(document)).split("Summary on")[0]


@pytest.mark.parametrize(("share", "words"), [(0.5, "are 50 % zero-shot’s, in testing too"), (0.0, ""), (None, "")])
def test_the_top_says_how_far_zero_shot_decides(no_plots: None, share: float | None, words: str) -> None:
    document = with_means(30.0, 18.0, ogen=True)
    hosts = {"zero_shot": {}, "coop": {"n_context": 4}, "coop+ogen": {"ogen": {"settings": {"zero_shot_share": share}}}}
    document["protocol"] |= {"new_names_known_in_training": False, "hosts": hosts}
    top = text_of(build_report(document)).split("Summary on")[0]
    assert words in top and ("class weights" in top) is bool(words)


def test_the_caption_of_a_curve_names_the_best_epoch_only_if_it_passed() -> None:
    epochs = {"epoch": [1, 2, 3], "base": [25.0, 26.0, 27.0]}
    falling, rising = (
        plots.mean_curve([epochs | {"new": [20.0, 24.0, 19.0]}]),
        plots.mean_curve([epochs | {"new": [20.0, 24.0, 25.0]}]),
    )
    assert "New was highest at epoch 2, 24.0." in plots.parting_words(falling, [], 20.0, 20.0)
    assert "highest" not in plots.parting_words(rising, [], 20.0, 20.0)
    level = plots.mean_curve([epochs | {"new": [20.0, 24.01, 24.0]}])
    assert "highest" not in plots.parting_words(level, [], 20.0, 20.0)


def only_with_ogen() -> dict[str, Any]:
    document = copy.deepcopy(fake_results())
    for part in ("rows", "summary", "curves", "confusions", "per_class"):
        document[part] = [i for i in document[part] if i["ogen"] or i["host"] == "zero_shot"]
    return {**document, "tests": []}


def test_a_benchmark_of_ogen_alone_is_told_as_such(no_plots: None) -> None:
    text = text_of(build_report(only_with_ogen()))
    assert "CoOp + OGEN gains" in text.split("Summary on")[0] and "with OGEN it" not in text
    assert "Sorted by CoOp + OGEN minus zero-shot" in text


def test_curves_of_a_host_and_of_ogen_stand_side_by_side_in_one_scale() -> None:
    pytest.importorskip("matplotlib")
    html_page = build_report(fake_results())
    part = html_page.split("Base and new names over training")[1].split("<section>")[0]
    assert part.index("<h3>CoOp<") < part.index("<h3>CoOp + OGEN<")
    assert part.count("<svg role") == 2 and not Collector(html_page).open


def test_the_card_lists_the_settings_of_ogen(no_plots: None) -> None:
    document = fake_results()
    document["protocol"]["hosts"]["coop+ogen"] = {"n_context": 4, "ogen": {"preset": "ogenlib", "k": 3}}
    text = text_of(build_report(document))
    assert 'hosts: coop+ogen {"n_context": 4, "ogen": {"preset": "ogenlib", "k": 3}}' in text
    assert "new names known in training no" in text


def test_hosts_whose_generators_made_the_same_share_a_picture(no_plots: None) -> None:
    points = [{"class": c, "kind": k, "xy": [c, c]} for c in (0, 1) for k in ("real", "synthesized")]
    entry = {"host": "coop", "ogen": True, "domain": "noto", "classes": ["a", "b"], "points": points}
    other = [{**points[0], "xy": [5, 5]}, *points[1:]]
    entries = [entry, {**entry, "host": "taskres"}, {**entry, "host": "kgcoop", "points": other}]
    page = build_report({**fake_results(), "projection": entries})
    part = page.split("Real and synthesized features")[1].split("<section>")[0]
    assert "<h3>CoOp + OGEN, TaskRes + OGEN<" in part and "<h3>KgCoOp + OGEN<" in part and part.count("<h3>") == 2

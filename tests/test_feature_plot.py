"""The report's picture of real and synthesized features."""

from __future__ import annotations

import copy
import json
import re
import sys
from typing import Any

import pytest
from test_report import fake_results

from ogenlib.report.page import build_report
from ogenlib.report.plots.features import clouds, feature_section, words


def cluster(place: int, kind: str, x: float, y: float, n: int = 4) -> list[dict[str, Any]]:
    return [{"class": place, "kind": kind, "xy": [x + 0.01 * i, y - 0.01 * i]} for i in range(n)]


def entry(**changes: Any) -> dict[str, Any]:
    points = [
        *cluster(0, "real", 0, 0),
        *cluster(1, "real", 1, 0),
        *cluster(2, "real", 0, 1),
        *cluster(0, "synthesized", 0.1, 0.1),
        *cluster(1, "synthesized", 0.1, 0),
        *cluster(2, "synthesized", 0, 0.9),
        *cluster(1, "text", 0.5, 0.5, 1),
    ]
    return {
        "host": "coop",
        "ogen": True,
        "domain": "noto",
        "variant": "joint-shift",
        "classes": ["mail", "tool & <b>", "a very long name of a class"],
        "points": points,
        **changes,
    }


def document(*entries: Any) -> dict[str, Any]:
    return {**fake_results(), "projection": list(entries)}


def test_the_section_shows_every_point_and_names_every_class() -> None:
    pytest.importorskip("matplotlib")
    html = build_report(document(entry()))
    assert "Real and synthesized features" in html and "CoOp + OGEN" in html and "noto · joint-shift" in html
    svg = next(s for s in re.findall(r"<svg role.*?</svg>", html, re.DOTALL) if "Real and synthesized" in s)
    for name in ("mail", "tool &amp; &lt;b&gt;", "a very long name of a…"):
        assert name in svg
    # Clouds of 3 real and 3 synthesized classes, 1 name, and the means of the synthesized classes.
    assert len(re.findall(r'id="features-0-PathCollection', svg)) == 3 + 3 + 1 + 3
    assert set(re.findall(r"--h\d", svg)) == {"--h1", "--h2", "--h3"} and "var(--paper)" in svg
    assert not re.search(r"#0a0b0|#0a0c0", svg)


def test_the_caption_says_how_many_means_are_right() -> None:
    assert words(clouds(entry())).endswith("2 of 3.")  # class 1 was made beside class 0
    only_real = entry(points=cluster(0, "real", 0, 0) + cluster(1, "real", 1, 0))
    assert words(clouds(only_real)).endswith("0 of 0.")
    assert "name</span>" not in str(feature_section({"projection": [only_real]}))


def test_a_report_without_projection_is_as_before() -> None:
    plain = build_report(fake_results())
    assert "synthesized" not in plain
    for nothing in ([], None, [entry(points=[])], [entry(classes=[])], ["no entry"]):
        assert build_report({**fake_results(), "projection": nothing}) == plain


def test_points_that_cannot_be_drawn_are_left_out() -> None:
    broken = [
        {"class": 9, "kind": "real", "xy": [0, 0]},
        {"class": 0, "kind": "other", "xy": [0, 0]},
        {"class": 0, "kind": "real", "xy": [float("nan"), 0]},
        {"class": 0, "kind": "real", "xy": [1]},
        {"class": None, "kind": "real", "xy": [0, 0]},
        {"class": 0, "kind": "real"},
        "point",
    ]
    good = entry()
    assert clouds(entry(points=[*good["points"], *broken])) == clouds(good)


def test_the_same_document_gives_the_same_page() -> None:
    one = document(entry(), entry(variant="shift"))
    assert build_report(one) == build_report(json.loads(json.dumps(copy.deepcopy(one))))
    ids = re.findall(r'\bid="([^"]+)"', build_report(one))
    assert len(ids) == len(set(ids))


def test_a_single_point_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    alone = entry(classes=["mail"], points=cluster(0, "real", 0.5, 0.5, 1))
    assert "mail" in build_report(document(alone))


def test_without_matplotlib_the_words_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = str(feature_section(document(entry())))
    assert "2 of 3." in html and "pip install" in html and "<svg role" not in html

"""Robustness tables by hand, and the report's section on them."""

from __future__ import annotations

from typing import Any

import pytest

from ogenlib.report.plots import lines as plots
from ogenlib.report.sections.robust import path_of, robust_section
from ogenlib.results.robustness import chosen_alpha, effective_robustness, points_of, robustness_tables


def scores(value: float, ood: float, zero: float | None, val: float = 50.0) -> dict[str, Any]:
    return {"val": val, "id": value, "ood": ood, "zero_shot": zero}


def entries() -> list[dict[str, Any]]:
    found = []
    for seed in (1, 2):
        zero, full = scores(40, 30, 70), scores(60 + seed, 20, 50)
        half = scores(54, 31, 66, val=80)
        curve = [{"alpha": 0.0, **zero}, {"alpha": 0.5, **half}, {"alpha": 1.0, **full}]
        found.append({"host": "zero_shot", "ogen": False, "seed": seed, **zero, "curve": None, "why_no_curve": "none"})
        found.append({"host": "full_ft", "ogen": False, "seed": seed, **full, "curve": curve, "why_no_curve": None})
        found.append(
            {
                "host": "coop",
                "ogen": True,
                "seed": seed,
                **scores(50, 35, None),
                "curve": None,
                "others": {"VRF, paper": scores(51, 36, None)},
            }
        )
    return found


def test_effective_robustness_by_hand() -> None:
    zero, tuned = scores(40, 30, 0), scores(60, 20, 0)
    # the line falls by a half a point: 25 at 50
    assert effective_robustness(scores(50, 31, 0), zero, tuned) == pytest.approx(6)
    assert effective_robustness(zero, zero, tuned) == effective_robustness(tuned, zero, tuned) == 0
    assert effective_robustness(scores(50, 31, 0), zero, scores(40.9, 20, 0)) is None  # too short a line
    assert effective_robustness({"id": 50, "ood": None}, zero, tuned) is None


def test_alpha_is_chosen_on_validation_images_and_the_smaller_of_equals() -> None:
    curve = [{"alpha": 0.0, "val": 1.0, "id": 99.0}, {"alpha": 0.5, "val": 2.0}, {"alpha": 1.0, "val": 2.0}]
    assert chosen_alpha(curve) == 0.5


def test_points_of_entries_with_and_without_a_curve() -> None:
    zero, full, coop = entries()[:3]
    assert list(points_of(zero)) == ["trained"] and points_of(zero)["trained"]["alpha"] is None
    assert {name: p["alpha"] for name, p in points_of(full).items()} == {"trained": 1, "half": 0.5, "chosen": 0.5}
    assert points_of(full)["chosen"]["ood"] == 31
    assert list(points_of(coop)) == ["trained", "VRF, paper"] and points_of(coop)["VRF, paper"]["id"] == 51


def test_tables_take_the_line_of_the_same_seed() -> None:
    found = robustness_tables(entries())
    by = {(row["host"], row["seed"]): row["points"] for row in found["robustness"]}
    # seed 1: from (40, 30) to (61, 20); at 50 the line is at 30 - 10 * 10 / 21
    assert by["coop", 1]["trained"]["effective_robustness"] == pytest.approx(35 - (30 - 100 / 21))
    assert by["coop", 2]["trained"]["effective_robustness"] == pytest.approx(35 - (30 - 100 / 22))
    assert by["full_ft", 1]["trained"]["effective_robustness"] == pytest.approx(0)
    summary = {(row["host"], row["point"]): row for row in found["robustness_summary"]}
    assert summary["full_ft", "trained"]["id"] == [61.5, pytest.approx(0.5**0.5)]
    assert summary["coop", "trained"]["zero_shot"] == [None, None] and summary["coop", "trained"]["n_seeds"] == 2
    alone = [e for e in entries() if e["host"] != "full_ft"]  # each method is its own reference then
    own = robustness_tables(alone)["robustness"][1]["points"]
    assert own["trained"]["effective_robustness"] == 0
    assert own["VRF, paper"]["effective_robustness"] == pytest.approx(36 - (30 + 11 * 5 / 10))


def test_the_section_of_the_report() -> None:
    document = {"protocol": {"effective_robustness": "the <line>"}, **robustness_tables(entries())}
    page = robust_section(document)
    assert page is not None and robust_section({"protocol": {}}) is None
    for text in ("WiSE-FT, alpha chosen", "the &lt;line&gt;", "Without a curve", "CoOp + OGEN", "· VRF, paper"):
        assert text in page, text
    full = [e for e in entries() if e["host"] == "full_ft"]
    assert path_of(full, "ood") == [(0.0, 40.0, 30.0), (0.5, 54.0, 31.0), (1.0, 61.5, 20.0)]
    assert path_of([*full, {"curve": None}], "ood") == []
    if plots.plots_available():
        assert page.count("<svg role") == 2 and page == robust_section(document)

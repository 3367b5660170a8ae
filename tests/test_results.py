"""Means, standard deviations and paired tests against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from ogenlib.detect import measures
from ogenlib.results import tables as results
from ogenlib.results import types
from ogenlib.utils.provenance import versions


def row(host: str, seed: int, base: float, new: float, ogen: bool = False) -> dict:
    h = results.harmonic_mean(base, new)
    scores = dict.fromkeys(results.METRICS, 50.0) | {"base": base, "new": new, "H": h, "joint_H": h}
    return {"dataset": "d", "domain": "x", "host": host, "ogen": ogen, "seed": seed, "seconds": 1.0, **scores}


def test_every_metric_is_a_key_of_rows_and_of_summaries() -> None:
    metrics = {*types.METRICS, *types.COMPETING_METRICS, *types.RETRIEVAL_METRICS, *types.DETECTION_METRICS, "seconds"}
    assert set(types.Measures.__annotations__) == set(types.Means.__annotations__) == metrics
    assert (*measures.METRICS, "flagged") == types.DETECTION_METRICS


def test_mean_and_sample_deviation() -> None:
    assert results.mean_std([1.0, 2.0, 3.0]) == [2.0, 1.0]
    assert results.mean_std([5.0]) == [5.0, None]
    assert results.mean_std([]) == [None, None]
    assert results.mean_std([1.0, math.nan]) == [None, None]
    assert [results.full_mean(v) for v in ([1.0, 2.0], [1.0, None], [])] == [1.5, None, None]
    assert [results.h_of(60.0, 20.0), results.h_of(60.0, None), results.h_of(0.0, 0.0)] == [30.0, None, 0.0]


def test_both_conventions_of_h() -> None:
    rows = [row("coop", 1, 80, 20), row("coop", 2, 40, 60)]
    (entry,) = results.summarize(rows)
    assert entry["n_seeds"] == 2 and entry["base"][0] == 60 and entry["new"][0] == 40
    assert entry["H"][0] == pytest.approx((32 + 48) / 2)
    assert entry["H_of_means"] == pytest.approx(48)


def test_hosts_are_tested_against_zero_shot_and_ogen_against_its_host() -> None:
    rows = [row("zero_shot", s, 50, 50) for s in (1, 2, 3)]
    rows += [row("coop", s, 60 + s, 40) for s in (1, 2, 3)]
    rows += [row("coop", s, 61 + 2 * s, 50, ogen=True) for s in (1, 2, 3)]
    tests = {(t["a"], t["b"], t["metric"]): t for t in results.paired_tests(rows, "x")}
    assert ("coop", "zero_shot", "base") in tests and ("coop+ogen", "coop", "base") in tests
    first = tests["coop", "zero_shot", "base"]
    # Differences 11, 12, 13: t = 12 / (1 / sqrt 3), two-sided with 2 degrees of freedom.
    t = 12 * math.sqrt(3)
    assert first["difference"] == 12 and first["p"] == pytest.approx(1 - t / math.sqrt(t**2 + 2), rel=1e-6)
    assert tests["coop", "zero_shot", "new"]["p"] is None  # every difference is -10
    assert not [k for k in tests if k[0] == "zero_shot"]
    assert tests["coop+ogen", "zero_shot", "base"]["difference"] == 15  # differences 13, 15, 17
    assert tests["coop+ogen", "coop", "base"]["difference"] == 3  # 2, 3, 4


def test_ogen_alone_is_tested_against_zero_shot() -> None:
    rows = [row("zero_shot", s, 50, 50) for s in (1, 2)] + [row("coop", s, 60, 50, ogen=True) for s in (1, 2)]
    assert {(t["a"], t["b"]) for t in results.paired_tests(rows, "x")} == {("coop+ogen", "zero_shot")}


def test_one_seed_has_a_difference_and_no_p() -> None:
    (test, *_) = results.paired_tests([row("zero_shot", 1, 50, 50), row("coop", 1, 60, 40)], "x")
    assert test["difference"] == 10 and test["p"] is None and test["n"] == 1


def test_versions_name_what_decides_results() -> None:
    found = versions()
    assert {"python", "ogenlib", "torch", "open_clip_torch"} <= set(found)
    assert found["torch"][0].isdigit()

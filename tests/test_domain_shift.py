"""domain-shift: what is kept out, what is tested, what is chosen on what, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ogenlib import hosts
from ogenlib.bench.protocols import Plan, plan
from ogenlib.bench.protocols.domain_shift import ShiftJudge, held_out_rows
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.evaluate import scores as evaluate
from ogenlib.merge.wise import wise_ft
from ogenlib.report.page import build_report
from ogenlib.report.text import summary_text
from ogenlib.results import tables as results
from ogenlib.runs.config import ALL_SHOTS
from ogenlib.runs.saved import load_run

pytestmark = pytest.mark.slow

ACTIVITIES, FOOD = "emoji-concepts/activities", "emoji-concepts/food-drink"


def small(**changes: Any) -> BenchConfig:
    given = {
        "protocol": "domain-shift",
        "epochs": 1,
        "shots": 2,
        "views": 1,
        "seeds": (1,),
        "ogen": "no",
        "hosts": ("text_adapter",),
        "settings": {"lr": 0.05, "warmup_epochs": 0},
    }
    return BenchConfig(**{**given, **changes})


def test_a_fifth_of_each_class_is_kept_out_by_keys_alone() -> None:
    labels = [0] * 10 + [1] * 3 + [2]
    keys = [f"k{i}" for i in range(14)]
    found = held_out_rows(labels, keys)
    assert [sum(labels[i] == c for i in found) for c in range(3)] == [2, 1, 0]
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0)).tolist()
    again = held_out_rows([labels[i] for i in order], [keys[i] for i in order])
    assert {keys[i] for i in found} == {keys[order[i]] for i in again}


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(small(test_domains=("noto", "openmoji")))


def test_validation_images_are_trained_and_tested_nowhere(planned: Plan) -> None:
    *tested, validation = planned.parts
    trained, kept_out = set(planned.source.train.keys), set(validation.images.keys)
    assert len(trained) + len(kept_out) == 387 and not trained & kept_out
    assert not any((trained | kept_out) & set(part.images.keys) for part in tested)
    assert {i.label for i in validation.images} == set(range(51)) and set(validation.images.domains) == {"noto"}
    assert planned.card["validation"]["images"] == len(kept_out)


def test_every_other_embedded_dataset_is_tested(planned: Plan) -> None:
    judge = planned.judge
    assert isinstance(judge, ShiftJudge) and len(judge.sides.parts) == 2 and len(judge.retention) == 8
    assert all(set(p.images.domains) == {"noto"} for p in judge.retention)
    assert [c["dataset"] for c in planned.card["retention"]] == [p.dataset for p in judge.retention]
    assert (
        "validation images" in planned.card["selection"] and "the method itself" in planned.card["effective_robustness"]
    )


def test_concepts_are_trained_as_they_are() -> None:
    made = plan(small(dataset=ACTIVITIES))
    assert set(made.source.train.domains) == {"emojione", "fluent-emoji-flat", "openmoji"} and made.home == "noto"
    assert [p.images.domains[0] for p in made.parts[:3]] == ["noto", "emojione-monotone", "fluent-emoji-high-contrast"]
    assert "emoji-categories" in [c["dataset"] for c in made.card["retention"]]
    assert "hold no other drawing" in made.card["id_is"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "few-shot", "alphas": (0.0, 1.0)}, "are for --protocol domain-shift, not few-shot"),
        ({"protocol": "base-to-new", "retention": ("x",)}, "are for --protocol domain-shift"),
        ({"alphas": (0.0, 0.5)}, "must rise from 0 to 1"),
        ({"alphas": (0.0, 1.0, 0.5)}, "must rise from 0 to 1"),
        ({"alphas": (0.0, 1.0, 1.5)}, "alpha=1.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_retention_of_the_source_is_refused() -> None:
    with pytest.raises(ValueError, match="which is trained on"):
        plan(small(retention=("emoji-categories",)))


RUN = {"dataset": ACTIVITIES, "test_domains": ("noto", "emojione-monotone"), "retention": (FOOD,)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The smallest of the embedded datasets: what takes the time is encoding of test images."""
    out = tmp_path_factory.mktemp("shift")
    config = small(**RUN, alphas=(0.0, 0.5, 1.0), shots=ALL_SHOTS, epochs=2)
    return out, run_bench(config, out)


def test_a_run_and_its_numbers(finished: tuple[Path, dict[str, Any]]) -> None:
    out, document = finished
    assert document["schema"] == results.SCHEMA and document["protocol"]["name"] == "domain-shift"
    zero, tuned = document["robustness"]
    assert (zero["host"], zero["curve"], tuned["host"]) == ("zero_shot", None, "text_adapter")
    assert "nothing that training changed" in zero["why_no_curve"]
    first, half, last = tuned["curve"]
    assert {k: first[k] for k in ("id", "ood", "zero_shot", "val")} == {
        k: zero[k] for k in ("id", "ood", "zero_shot", "val")
    }
    assert (last["id"], last["ood"]) == (tuned["id"], tuned["ood"]) and last["id"] != first["id"]
    rows = {(r["host"], r["domain"]): r for r in document["rows"]}
    assert rows["text_adapter", "noto"]["base"] == pytest.approx(tuned["id"])
    assert rows["text_adapter", "emojione-monotone"]["new"] == pytest.approx(tuned["ood"])
    # the middle, once more, from the saved run
    planned = plan(small(**RUN))
    host = wise_ft(load_run(out / "runs" / "text_adapter-seed1"), 0.5)
    part = planned.judge.retention[0] if isinstance(planned.judge, ShiftJudge) else None
    assert part is not None
    logits = evaluate.predict_logits(host, part.images, part.images.classnames)
    assert evaluate.accuracy(logits, part.images.labels) == pytest.approx(half["zero_shot"])


def test_its_report_and_text(finished: tuple[Path, dict[str, Any]]) -> None:
    out, document = finished
    assert "WiSE chosen" in summary_text(document)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Robustness" in page and "all training images" in page
    assert page.count("Trained on emojione, fluent-emoji-flat, openmoji") == 2
    assert "noto (reference)" in page and "noto (training)" not in page
    assert build_report(json.loads((out / "results.json").read_text())) == page


def test_pixel_hosts_are_measured_on_base_alone() -> None:
    assert not hosts.method("vpt").uses_cached_features
    asked: list[int] = []

    class Tested:
        def first(self, count: int) -> Any:
            asked.append(count)
            raise StopIteration

    judge = ShiftJudge(plan(small(test_domains=("noto", "openmoji"))).judge.sides, (), (0.0, 1.0))  # type: ignore
    with pytest.raises(StopIteration):
        judge.measure(hosts.VPT, Tested())  # type: ignore
    assert asked == [2]

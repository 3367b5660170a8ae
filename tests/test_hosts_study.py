"""The study of all methods: what is run, what is paired with what, and its parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel
from study_documents import hosts_rows

from benchmarks.common.options import part_of
from benchmarks.hosts import study as hosts_study
from benchmarks.hosts.study import HOME, OTHERS
from benchmarks.ogen.tasks import StudyTask, emoji_tasks
from benchmarks.ogen.variants import SCORES, run_all
from ogenlib.data import FeatureBank, PixelBank
from ogenlib.hosts import METHODS, build


def test_every_method_is_run_and_only_those_that_take_it_with_ogen() -> None:
    found = [(v.host, v.ogen is not None) for v in hosts_study.host_variants(list(METHODS))]
    assert [h for h, ogen in found if not ogen] == list(METHODS)
    assert {h for h, ogen in found if ogen} == {h for h, cls in METHODS.items() if cls.info.ogen}
    assert ("zero_shot", True) not in found and ("tip_adapter", True) not in found


def test_fine_tuning_is_left_to_its_own_study() -> None:
    found = hosts_study.parse([]).hosts
    assert {"zero_shot", "vpt", "clap"} <= set(found) and not {"full_ft", "flyp"} & set(found)


def test_epochs_by_kind_of_method() -> None:
    args = hosts_study.parse(["--epochs", "50", "--pixel-epochs", "20", "--cocoop-epochs", "10"])
    assert [hosts_study.epochs_of(h, args) for h in ("coop", "vpt", "cocoop")] == [50, 20, 10]
    args.epochs = 1
    assert [hosts_study.epochs_of(h, args) for h in ("coop", "vpt", "cocoop")] == [1, 1, 1]


def test_other_sets_are_averaged_without_noto() -> None:
    row = {"domains": {d: dict.fromkeys(SCORES, v) for d, v in ((HOME, 90.0), ("a", 10.0), ("b", 30.0))}}
    assert hosts_study.with_other_sets(row)["domains"][OTHERS] == dict.fromkeys(SCORES, 20.0)


def gain(found: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (one,) = [g for g in found if all(g[k] == v for k, v in wanted.items())]
    return one


def test_gains_pair_seeds_of_one_dataset_and_datasets_of_several() -> None:
    rows = hosts_rows()
    found = hosts_study.gains(rows)
    assert {g["host"] for g in found} == {"coop", "vpt"}  # zero-shot has nothing to be paired with
    single = gain(found, family="emoji", host="coop", domain=HOME, metric="H")
    assert (single["pairs"], single["n"]) == ("seed", 3) and single["difference"] == pytest.approx(2.2)
    assert single["p"] == pytest.approx(ttest_rel([42.1, 42.2, 42.3], [40.0] * 3).pvalue)
    several = gain(found, family="emoji-concepts", host="coop", domain=HOME, metric="joint_H")
    assert (several["pairs"], several["n"]) == ("task", 2) and several["difference"] == pytest.approx(2.7)
    assert several["p"] == pytest.approx(ttest_rel([42.2, 44.2], [40.0, 41.0]).pvalue)
    far = gain(found, family="emoji", host="vpt", domain=OTHERS, metric="H")
    assert far["difference"] == 0 and far["p"] is None


def test_costs_are_those_of_the_first_family() -> None:
    found = hosts_study.costs(hosts_rows(), {"coop host alone": 900.0})
    assert [(c["host"], c["variant"]) for c in found][:3] == [
        ("zero_shot", "host alone"),
        ("coop", "host alone"),
        ("coop", "ogenlib"),
    ]
    assert found[1] == {
        "host": "coop",
        "variant": "host alone",
        "family": "emoji",
        "epochs": 20,
        "parameters": 512,
        "seconds": 2.5,
        "peak_mib": 900.0,
    }
    assert found[2]["peak_mib"] is None


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "a/b", "1/-2"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="give I/N"):
        part_of(text)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> StudyTask:
    """One small dataset of few images, features kept in a folder."""
    keep = tmp_path_factory.mktemp("banks")
    whole = emoji_tasks([1], "emoji-concepts/activities", keep=keep)[1]
    again = emoji_tasks([1], "emoji-concepts/activities", keep=keep)[1]
    assert whole.bank.fingerprint == again.bank.fingerprint and len(list(keep.glob("*.safetensors"))) == 2
    return again


@pytest.mark.slow
def test_a_host_gets_the_bank_it_reads(task: StudyTask) -> None:
    features = task.banks(build("coop", task.clip, task.split.base))
    pixels = task.banks(build("vpt", task.clip, task.split.base))
    assert all(isinstance(b, FeatureBank) for b in features) and all(isinstance(b, PixelBank) for b in pixels)
    for a, b in zip(features, pixels, strict=True):
        assert a.keys == b.keys and a.domains == b.domains and a.fingerprint["data"] == b.fingerprint["data"]
    bare = StudyTask("bare", "x", task.clip, task.split, task.bank, task.test, task.templates)
    with pytest.raises(ValueError, match="bare has features only; vpt needs pixels"):
        bare.banks(build("vpt", task.clip, task.split.base))


def test_finished_rows_are_read_again_and_parts_make_the_whole(task: StudyTask, tmp_path: Path) -> None:
    cells = [(v, task, 1, 1) for v in hosts_study.host_variants(["zero_shot", "tip_adapter", "taskres"])][:3]
    parts = [run_all(cells[i::2], tmp_path) for i in range(2)]
    assert len(list(tmp_path.glob("*.json"))) == len(cells) == 3
    whole = run_all(cells, tmp_path)
    assert sorted(r["seconds_all"] for r in whole) == sorted(r["seconds_all"] for part in parts for r in part)
    by_host = {(r["host"], r["variant"]): r for r in whole}
    tip, zero = by_host["tip_adapter", "host alone"], by_host["zero_shot", "host alone"]
    assert tip["domains"] != zero["domains"]  # its cache was built
    assert by_host["taskres", "host alone"]["parameters"] == len(task.split.base) * task.clip.embed_dim

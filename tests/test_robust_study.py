"""The study of robust fine-tuning: what is run, and what its rows become."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from study_documents import rates_document, robust_document

from benchmarks.hosts.study import host_variants
from benchmarks.ogen.variants import Variant
from benchmarks.robust import pictures as robust_pictures
from benchmarks.robust import rates as robust_rates
from benchmarks.robust import study as robust_study
from benchmarks.robust import world as robust_world
from ogenlib import fit
from ogenlib.bench.protocols import Tested
from ogenlib.data import ImageSet, PixelBank, few_shot, load_dataset
from ogenlib.data.dataset import Item
from ogenlib.hosts import METHODS, build
from ogenlib.merge.vrf import VRF
from ogenlib.results.types import ROBUST_METRICS
from ogenlib.towers import load_backbone

pytestmark = pytest.mark.slow


def test_every_fine_tuning_method_is_run() -> None:
    found = robust_study.fine_tuning_hosts()
    assert found[:2] == ["zero_shot", "full_ft"] and "coop" not in found
    assert set(found[1:]) - {"linear_probe"} == {n for n, cls in METHODS.items() if cls.info.kind == "fine-tuning"}
    assert robust_study.parse([]).hosts == found and robust_study.parse([]).part is None
    concepts = robust_study.parse(["--concepts"])
    assert len(concepts.datasets) == 8 and concepts.hosts == ["zero_shot", *robust_study.FIRST]
    assert concepts.out.name == "robust-concepts.json" and robust_study.parse([]).out.name == "robust.json"


def test_tables_keep_points_by_dataset() -> None:
    document = robust_document()
    points = {(e["host"], e["point"]) for e in document["summary"]}
    assert ("vpt", "VRF, paper") in points and ("full_ft", "chosen") in points and ("zero_shot", "chosen") not in points
    assert {e["task"] for e in document["summary"]} == {"emoji-categories"}
    assert document["costs"][1] == {"host": "full_ft", "ogen": False, "epochs": 20, "seconds": 15.0, "parameters": 4000}


def test_sixteen_shots_are_all_images() -> None:
    """What docs/robust.md says of the embedded datasets."""
    for name in ("emoji-categories", "emoji-concepts/objects"):
        train = load_dataset(name).train
        assert len(few_shot(train, 16, 1)) == len(train)
    assert len(train) == 3 * len(train.classnames)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of banks for all worlds of this file: they have the same images."""
    return tmp_path_factory.mktemp("kept")


def small(kept: Path, *hosts: str) -> robust_world.World:
    """The world of the study with two shots, and few images of every domain, that of training too."""
    command = "--shots 2 --domains noto streamline-emojis --alphas 0 0.5 1 --retention emoji-concepts/activities"
    args = robust_study.parse([*command.split(), "--most", "40", "--precision", "fp32", "--work", str(kept)])
    here = robust_world.world("emoji-categories", hosts, args)
    first, *others = here.plan.parts
    few = replace(first, images=robust_world.some_of(first.images, 80))
    return replace(here, plan=replace(here.plan, parts=(few, *others)))


def test_a_finished_run_is_read_again(kept: Path, tmp_path: Path) -> None:
    here = small(kept, "taskres")
    cells = [(variant, here, 1, 1) for variant in host_variants(["zero_shot", "taskres"])][:2]
    rows = robust_study.run_all(cells, tmp_path)
    assert robust_study.run_all(cells, tmp_path) == rows and len(list(tmp_path.glob("*.json"))) == 2
    zero, tuned = rows
    assert {k: tuned["curve"][0][k] for k in ROBUST_METRICS} == {k: zero[k] for k in ROBUST_METRICS}
    assert zero["parameters"] == 0 and tuned["parameters"] == pytest.approx(51 * 128)
    assert robust_study.tables(rows)["summary"][0]["host"] == "zero_shot"
    assert "lr" not in tuned and len(robust_study.run_all(cells, tmp_path, {"taskres": 1e-5})) == 2
    assert len(list(tmp_path.glob("*.json"))) == 3  # another rate is another run


def test_scores_of_kept_features_are_those_of_the_judge(kept: Path) -> None:
    """Encoded once, with frozen features at hand, OGEN's two towers among them."""
    here = small(kept, "full_ft")
    pixels = Tested(here.features, here.features, here.pixels, here.pixels)
    for ogen in (None, {"teacher": None, "iterations": 3}):
        host = robust_world.make_host(Variant("x", "full_ft", ogen), here, 1)
        assert here.is_zero_shot(host)
        bank = here.bank(host, 1)
        fit(host, bank, epochs=1, seed=1, lr=1e-3)
        assert not here.is_zero_shot(host)
        seen = here.encode(host)
        points = here.vrf_points(host, bank, seen)["VRF, paper"]
        pairs = ((here.scores(host, seen), host), (points, VRF(host, bank, "paper")))
        for found, plain in pairs:
            expected = here.judge.scores(plain, pixels)
            assert [found[k] for k in ROBUST_METRICS] == pytest.approx([expected[k] for k in ROBUST_METRICS], abs=0.3)


def test_known_features_are_those_of_the_pixels(kept: Path) -> None:
    here = small(kept, "full_ft")
    bank = here.bank(robust_world.make_host(Variant("x", "full_ft"), here, 1), 1)
    assert isinstance(bank, robust_world.KnownPixels)
    part = bank.select(here.plan.known[3:5])
    again = PixelBank.frozen(part, here.clip)
    known = part.frozen(here.clip)
    assert known.keys == again.keys and torch.equal(known.labels, again.labels)
    assert torch.allclose(known.features.float(), again.features.float(), atol=2e-3)
    with pytest.raises(ValueError, match="other images"):
        robust_world.KnownPixels.of(here.pixels[0], here.features[1])


def test_arf_is_given_captions_and_anchors_without_what_is_tested(kept: Path) -> None:
    here = small(kept, "arf")
    host = robust_world.make_host(Variant("x", "arf"), here, 1)
    hidden = {item.key.rpartition("/")[2] for part in here.plan.parts for item in part.images}
    assert host.captions.keys() == set(here.images(1).keys)
    assert not hidden & {key.rpartition("/")[2] for key in host.anchors.pixels.keys}


def test_tested_images_are_the_same_in_every_run() -> None:
    items = [Item(f"{i}.png", 0, "a", f"a/{i}") for i in range(9)]
    few = robust_world.some_of(ImageSet(items, ("x",)), 4)
    assert len(few) == 4 and few.keys == sorted(few.keys)
    assert robust_world.some_of(ImageSet(items, ("x",)), 4).keys == few.keys
    assert len(robust_world.some_of(few, 4)) == 4


def test_the_chosen_rate_is_the_smallest_of_equals(tmp_path: Path) -> None:
    document = rates_document()
    assert document["chosen"]["full_ft"] == {"factor": 3, "lr": pytest.approx(3e-4), "of": "full_ft"}
    assert document["chosen"]["kd"] == document["chosen"]["full_ft"] and "flyp" not in document["chosen"]
    path = tmp_path / "rates.json"
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.robust\.rates"):
        robust_rates.chosen_rates(path)
    path.write_text(json.dumps(document), encoding="utf-8")
    assert robust_rates.chosen_rates(path)["ema"] == pytest.approx(3e-4)


def test_a_family_has_one_rate() -> None:
    clip = load_backbone("ogen-tiny")
    for host, member in robust_rates.FAMILIES.items():
        own = [build(name, clip, ["fox", "owl"]).train_settings()["lr"] for name in (host, member)]
        assert own[0] == own[1], host


def test_pictures_are_files_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    document = robust_document()
    (path,) = robust_pictures.draw(document, tmp_path)
    assert path.name == "robust-baselines.svg"
    svg = path.read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert "VPT" in svg and "--h1:" in svg and svg.count("<svg") == 1

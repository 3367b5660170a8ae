"""``ogen detect``: scores, decisions and messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import ogenlib as og
from ogenlib.cli.main import main
from ogenlib.detect.measures import threshold_at
from ogenlib.hosts import ZeroShot

NAMES = ["dog", "cat", "hammer", "saw", "apple"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, two images, and a bank of features of known classes."""
    folder = tmp_path_factory.mktemp("detect")
    clip = og.load_backbone("ogen-tiny")
    ZeroShot(clip, NAMES).save(folder / "run")
    for color in ("red", "blue"):
        Image.new("RGB", (64, 64), color).save(folder / f"{color}.png")
    texts = clip.encode_text([f"a photo of a {n}" for n in NAMES]).repeat_interleave(4, dim=0)
    noise = torch.randn(texts.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(NAMES)).repeat_interleave(4)
    bank = og.FeatureBank.from_features(texts + 0.05 * noise, labels, NAMES, clip)
    bank.save(folder / "known.safetensors")
    return folder


def call(work: Path, *options: str) -> int:
    images = [str(work / "red.png"), str(work / "blue.png")]
    return main(["detect", str(work / "run"), *images, "--out", str(work / "out"), *options])


def test_scores_without_and_with_a_decision(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(work) == 0
    said = capsys.readouterr().out
    assert said.count("nearest") == 2
    assert "no decision" in said
    bank = str(work / "known.safetensors")
    assert call(work, "--known", bank, "--fit", bank, "--unknown", "church", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((work / "out" / "detect.json").read_text())
    for row in found["images"]:
        assert row["nearest"] in NAMES
        assert row["known"] == (row["score"] <= found["threshold"])


@pytest.fixture(scope="module")
def pixel_work(work: Path) -> Path:
    """A run whose image side is its own, and a folder of images of its classes."""
    og.hosts.build("vpt", og.load_backbone("ogen-tiny"), NAMES).save(work / "pixel-run")
    for place, name in enumerate(NAMES):
        (work / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (64, 64), (50 * place, 20 * i, 90)).save(work / "photos" / name / f"{i}.png")
    return work


def test_a_run_that_changes_the_image_side_reads_images(pixel_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, image = str(pixel_work / "pixel-run"), str(pixel_work / "red.png")
    photos, out = str(pixel_work / "photos"), str(pixel_work / "out")
    assert main(["detect", run, image, "--known", photos, "--fit", photos, "--json", "--out", out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known_kept"] == 0.95 and found["images"][0]["nearest"] in NAMES
    assert main(["detect", run, image, "--known", str(pixel_work / "known.safetensors"), "--out", out]) == 2
    assert "vpt changes the image side" in capsys.readouterr().err


def test_images_in_a_folder_are_worth_their_bank(pixel_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = pixel_work / "photos"
    data = og.load_dataset(photos)
    every = og.data.ImageSet([*data.train, *data.test], data.classnames)
    og.FeatureBank.extract(og.load_backbone("ogen-tiny"), every, path=pixel_work / "photos.safetensors")
    thresholds = []
    for source in (photos, pixel_work / "photos.safetensors"):
        assert call(pixel_work, "--known", str(source), "--json") == 0
        thresholds.append(json.loads(capsys.readouterr().out)["threshold"])
    assert thresholds[0] == pytest.approx(thresholds[1], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unknown", "dog"], "which the run knows"),
        (["--threshold", "0", "--known", "x"], "leave one out"),
        (["--known", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_input_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert call(work, *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_the_threshold_keeps_95_of_100() -> None:
    scores = torch.arange(100.0).flip(0)
    assert threshold_at(scores) == 94.0
    assert int((scores <= threshold_at(scores)).sum()) == 95
    assert threshold_at(torch.tensor([3.0])) == 3.0

"""Where captions and candidates come from: files about one's own images, and the embedded data without its tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pool_world import ColourClip

from ogenlib.anchors import AnchorSource, EmojiCaptions, anchor_source, read_candidates, write_captions
from ogenlib.anchors.source import source_hash
from ogenlib.bench.config import BenchConfig
from ogenlib.bench.protocols import plan
from ogenlib.data import Dataset, load_dataset
from ogenlib.runs.texts import source_for, text_options

COLOURS = {"red": (250, 0, 0), "blue": (0, 0, 250), "green": (0, 250, 0), "grey": (128, 128, 128)}


def painted(path: Path, colour: str, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((4, 4, 3), np.clip(np.array(COLOURS[colour]) - shade, 0, 255), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Two classes of four pictures each, in a folder."""
    for colour in ("red", "blue"):
        for i in range(4):
            painted(tmp_path / "mine" / colour / f"{i}.png", colour, 10 * i)
    return load_dataset(tmp_path / "mine")


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    """A folder with a picture of each colour and their captions."""
    for colour in COLOURS:
        painted(tmp_path / "candidates" / "some" / f"{colour}.png", colour)
    write_captions(tmp_path / "candidates" / "captions.csv", {f"some/{c}.png": [f"all {c}", c] for c in COLOURS})
    return tmp_path / "candidates"


def karpathy(folder: Path) -> Path:
    images = [
        {"filename": f"some/{c}.png", "split": "test" if c == "grey" else "train", "sentences": [{"raw": c}]}
        for c in COLOURS
    ]
    path = folder / "dataset_colours.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    return path


# ---------------------------------------------------------------------- files


def test_candidates_are_a_folder_a_file_or_a_split(candidates: Path) -> None:
    images, told = read_candidates(candidates)
    assert images.classnames == ("candidate",) and images.keys == [f"some/{c}.png" for c in COLOURS]
    assert told["some/red.png"] == ("all red", "red") and images.open(0).getpixel((0, 0)) == COLOURS["red"]
    assert read_candidates(candidates / "captions.csv")[1] == told
    split, texts = read_candidates(karpathy(candidates))
    assert split.keys == ["some/red.png", "some/blue.png", "some/green.png"] and texts["some/blue.png"] == ("blue",)


def test_candidates_that_are_not_there_are_named(candidates: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no captions.json or captions.csv; give a folder"):
        read_candidates(candidates / "some")
    with pytest.raises(FileNotFoundError, match="no such file of captions"):
        read_candidates(tmp_path / "none.csv")
    (candidates / "some" / "blue.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"some/blue.png: .*1 of 4 .*captions.csv"):
        read_candidates(candidates)


def test_captions_and_pairs_of_files(data: Dataset, candidates: Path, tmp_path: Path) -> None:
    told = {key: f"a {key[:3]} thing" for key in data.train.keys}
    write_captions(tmp_path / "told.json", told)
    source = anchor_source(data, tmp_path / "told.json", candidates)
    clip: Any = ColourClip()
    made = source.options(clip, data.train, tmp_path / "pool", k=1)
    assert made["captions"] == {key: (text,) for key, text in told.items()} and not source.texts
    pairs = made["anchors"]
    assert set(pairs.pixels.keys) == {"some/red.png", "some/blue.png"}  # the nearest to each picture
    assert pairs.captions["some/red.png"] == ("all red", "red") and pairs.pixels.classnames == data.classnames
    encoded = clip.encoded
    source.options(clip, data.train, tmp_path / "pool", k=1)
    assert clip.encoded == encoded + len(data.train)  # candidates are found again
    alone = anchor_source(data, pool=candidates)
    assert set(alone.options(clip, data.train, tmp_path / "pool", k=1)) == {"anchors"}
    assert source_hash(alone) != source_hash(source) and json.dumps(source.card)
    assert set(anchor_source(data, tmp_path / "told.json").options(clip, data.train, tmp_path)) == {"captions"}
    assert anchor_source(data).options(clip, data.train, tmp_path) == {}


def test_keys_of_a_file_are_images_or_class_names(data: Dataset, tmp_path: Path) -> None:
    texts: Mapping[str, Any] = {"red": ["something red"], "blue": ["something blue", "azure"]}
    write_captions(tmp_path / "names.json", texts)
    source = anchor_source(data, tmp_path / "names.json")
    assert source.captioner is None and source.texts == {name: tuple(own) for name, own in texts.items()}
    assert text_options("flyp", source) == {"texts": source.texts} and text_options("full_ft", source) == {}
    write_captions(tmp_path / "both.json", {**texts, **dict.fromkeys(data.train.keys, "x")})
    both = anchor_source(data, tmp_path / "both.json")
    assert both.captioner is not None and both.texts == source.texts
    unnamed = anchor_source(data, tmp_path / "both.json", has_captions=True)
    assert unnamed.captioner is not None and not unnamed.texts
    write_captions(tmp_path / "other.json", {"green": "x"})
    with pytest.raises(ValueError, match=r"other.json: .*\['green'\].* images of mine"):
        anchor_source(data, tmp_path / "other.json")


# ---------------------------------------------------------------------- what methods need


def test_methods_that_lack_something_say_what_to_give(data: Dataset, candidates: Path, tmp_path: Path) -> None:
    assert source_for(["flyp", "full_ft"], data) is None
    with pytest.raises(ValueError, match=r"arf trains with .*mine .*: give --captions FILE .*--pool"):
        source_for(["flyp", "arf"], data)
    with pytest.raises(ValueError, match=r"arf trains with retrieved pairs .*give --pool DIR"):
        source_for(["arf"], data, has_captions=True)
    with pytest.raises(ValueError, match=r"--pool .*: flyp cannot use it; leave it out, .*arf"):
        source_for(["flyp"], data, pool=candidates)
    write_captions(tmp_path / "told.json", dict.fromkeys(data.train.keys, "x"))
    with pytest.raises(ValueError, match=r"--captions .*: full_ft cannot use it; .*flyp, starft"):
        source_for(["full_ft"], data, tmp_path / "told.json")
    with pytest.raises(ValueError, match=r"captions of images, .*arf trains; flyp learns texts"):
        source_for(["flyp"], data, tmp_path / "told.json")
    assert isinstance(source_for(["flyp", "arf"], data, tmp_path / "told.json"), AnchorSource)


# ---------------------------------------------------------------------- the embedded data


def concept(key: str) -> str:
    return key.split("/")[1]


@pytest.mark.parametrize(
    ("protocol", "captioned"), [("base-to-new", True), ("domain-shift", True), ("retrieval", False)]
)
def test_embedded_candidates_show_nothing_that_is_tested(protocol: str, captioned: bool) -> None:
    planned = plan(BenchConfig(protocol=protocol, hosts=("arf",), test_domains=("noto", "openmoji"), ogen="no"))
    images = [part.images for part in planned.parts]
    source = source_for(
        ["arf"], planned.source, tested=images, without=planned.new, has_captions=planned.texts is not None
    )
    assert source is not None and source.candidates is not None
    shown = {concept(key) for key in source.candidates.keys}
    tested = {concept(key) for part in images for key in part.keys}
    assert len(shown) > 200 and not shown & tested and set(source.told) == set(source.candidates.keys)
    assert isinstance(source.captioner, EmojiCaptions) == captioned
    new = planned.source.train.of_classes(planned.new) if planned.new else []
    assert not shown & {concept(item.key) for item in new}

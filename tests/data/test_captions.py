"""Images with captions: Karpathy splits as people have them, and the embedded drawings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ogenlib.data import load_dataset
from ogenlib.data.captions import CaptionDataset, CaptionedImages, read_karpathy
from ogenlib.data.dataset import Item
from ogenlib.data.emoji import UNSEEN_SETS, Concept, concept_captions, load_emoji_captions

SPLITS = ("train", "restval", "val", "test", "test")


def entry(number: int, split: str, filepath: str | None = "val2014") -> dict[str, Any]:
    sentences = [{"raw": f" Picture {number}. ", "tokens": ["picture", str(number)]}, {"tokens": ["one", "thing"]}]
    found: dict[str, Any] = {"filename": f"{number:03}.png", "split": split, "sentences": sentences, "imgid": number}
    return found if filepath is None else {**found, "filepath": filepath}


def coco(folder: Path, **document: Any) -> Path:
    """A small `dataset_coco.json` with its pictures."""
    (folder / "val2014").mkdir(exist_ok=True)
    for number in range(len(SPLITS)):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / "val2014" / f"{number:03}.png")
    images = [entry(number, split) for number, split in enumerate(SPLITS)]
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"dataset": "coco", "images": images, **document}), encoding="utf-8")
    return path


def test_a_karpathy_split_is_read(tmp_path: Path) -> None:
    data = read_karpathy(coco(tmp_path))
    assert data.name == "coco" and data.val is not None
    assert data.train.keys == ["val2014/000.png", "val2014/001.png"]  # with restval
    assert (data.val.keys, data.test.keys) == (["val2014/002.png"], ["val2014/003.png", "val2014/004.png"])
    assert data.test.texts["val2014/003.png"] == ("Picture 3.", "one thing")
    assert data.info["restval_in_train"]
    assert data.as_dataset().test.open(0).getpixel((0, 0)) == (3, 3, 3)
    assert len(read_karpathy(tmp_path / "dataset_coco.json", restval=False).train) == 1


def test_flickr30k_has_no_filepath(tmp_path: Path) -> None:
    path = coco(tmp_path, images=[entry(n, s, None) for n, s in enumerate(SPLITS)], dataset="flickr30k")
    data = read_karpathy(path, tmp_path / "val2014")
    assert data.name == "flickr30k" and data.test.keys == ["003.png", "004.png"]


def test_every_image_is_a_class_of_its_own(tmp_path: Path) -> None:
    data = read_karpathy(coco(tmp_path))
    both = data.as_dataset()
    assert both.classnames == (*data.train.keys, *data.test.keys) and both.templates == ("{}",)
    assert both.train.labels.tolist() == [0, 1] and both.test.labels.tolist() == [2, 3]
    assert list(data.test.texts) == list(data.test.images().classnames)
    changed = CaptionedImages(data.test.items, (("Picture 3.",), ("other words",)))
    assert data.hash() == read_karpathy(tmp_path / "dataset_coco.json").hash()
    assert CaptionDataset("coco", data.train, changed).hash() != data.hash()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no list 'images'"),
        ([{"split": "train"}], "entry 0 has no 'filename'"),
        ([entry(0, "training")], r"entry 0 \(000.png\) is of the split 'training'; known are train, restval"),
        ([{**entry(0, "train"), "sentences": [{"raw": " "}]}], r"entry 0 \(val2014/000.png\) has no 'sentences'"),
        ([entry(0, "train")], "no images of the split 'test'; it has 1 of train"),
        ([entry(0, "train"), entry(0, "test")], "are trained and tested on"),
        ([entry(0, "train"), entry(1, "test"), entry(1, "test")], "two images have the key 'val2014/001.png'"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, images: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_karpathy(coco(tmp_path, images=images))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.json: there is no such file, .* a Karpathy split"):
        read_karpathy(tmp_path / "nowhere.json")
    path = coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'train'.*root=DIR.*val2014/000.png"):
        read_karpathy(path, tmp_path / "elsewhere")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        read_karpathy(path)


def test_captions_are_lists_of_texts_with_words() -> None:
    item = Item("a.png", 0)
    for texts in ((), ("",), "a dog"):
        with pytest.raises(ValueError, match=r"a.png: captions are"):
            CaptionedImages((item,), (texts,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 images have 0 lists"):
        CaptionedImages((item,), ())


def test_no_concept_of_the_embedded_test_is_trained() -> None:
    data = load_emoji_captions()

    def concepts(keys: list[str]) -> set[str]:
        return {key.split("/")[1] for key in keys}

    trained, tested = concepts(data.train.keys), concepts(data.test.keys)
    assert not trained & tested and len(trained) > 400
    assert {item.domain for item in data.train.items} == {"noto"}
    drawn = {domain: sum(i.domain == domain for i in data.test.items) for domain in UNSEEN_SETS}
    assert set(drawn.values()) == {len(tested)}  # the same things in every domain
    categories = load_dataset("emoji-categories")
    assert concepts(categories.train.keys) <= trained and concepts(categories.test.keys) <= tested


def test_embedded_captions_are_made_of_names_and_tags() -> None:
    rich = Concept("1", "red apple", ("apple", "fruit", "143", "red", "school"), "food-drink", "food-fruit")
    texts = concept_captions(rich)
    assert texts[:2] == ("an icon of a red apple.", "red apple, a fruit food")
    assert texts[2] in ("red apple, fruit", "red apple, school")  # neither a word of the name nor a number
    assert len(texts) == 4 and len(set(texts[3].split(", "))) == 3 and "143" not in texts[3]
    bare = Concept("2", "knot", (), "objects", "object-other")
    assert concept_captions(bare) == ("an icon of a knot.", "knot, a object")
    with pytest.raises(ValueError, match="must name icon sets"):
        load_emoji_captions(test_domains=["comic"])

"""Captions from files, from models of transformers (a stand-in), and of the embedded emoji."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pool_world import pictures

from ogenlib.anchors import (
    Captioner,
    EmojiCaptions,
    FileCaptions,
    TransformersCaptioner,
    caption_table,
    emoji_pool,
    read_captions,
    write_captions,
)
from ogenlib.anchors.emoji_candidates import Unsaid
from ogenlib.data import ImageSet, Item, base_new_split, load_dataset
from ogenlib.data.emoji import PRETRAINING_SETS, Concept, concept_captions, concepts
from ogenlib.towers import Backbone

NAMES = {c.id: c.name for c in concepts()}


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["captions.json", "captions.csv"])
def test_captions_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    table = {"colour/000": ('red, "really"', "a\nline"), "colour/001": ("größe",), "colour/002": ("x",)}
    write_captions(tmp_path / name, {**table, "colour/002": "x"})
    assert read_captions(tmp_path / name) == table
    images, _ = pictures(2)
    captioner = FileCaptions(tmp_path / name)
    assert isinstance(captioner, Captioner)
    assert captioner.caption(images) == ['red, "really"', "größe"]
    assert captioner.table(images) == {key: table[key] for key in ("colour/000", "colour/001")}


def test_bad_files_are_named(tmp_path: Path) -> None:
    images, _ = pictures(3)
    with pytest.raises(FileNotFoundError, match="no such file of captions"):
        read_captions(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"kept as .json or .csv"):
        write_captions(tmp_path / "captions.txt", {"a": "b"})
    cases = {
        "a.json": ("[1]", "an object of key -> text"),
        "b.json": ("{", "cannot be read as JSON"),
        "c.json": ("{}", "holds no captions"),
        "f.json": ("[" * 9999, "nested too deep"),
        "d.json": ('{"a": 3}', "Expected `str | array`, got `int`"),
        "e.json": ('{"a": []}', "captions of 'a'"),
        "a.csv": ("name,text\n", "must name the columns key,caption"),
        "b.csv": ("key,caption\na,\n", "line 2: needs a key and a caption"),
        "c.csv": ("key,caption\n" + 200_000 * "a", "no UTF-8 CSV file .field larger"),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=expected):
            read_captions(tmp_path / name)
    write_captions(tmp_path / "some.json", {"colour/001": "x"})
    with pytest.raises(ValueError, match=r"2 of 3 images, .*\['colour/000', 'colour/002'\]"):
        FileCaptions(tmp_path / "some.json").caption(images)


class Says:
    """Says the same of every image, or too little."""

    def __init__(self, text: str, short: int = 0) -> None:
        self.text, self.short = text, short

    def caption(self, images: ImageSet) -> list[str]:
        return [self.text] * (len(images) - self.short)


def test_a_table_joins_captioners_without_repeats(tmp_path: Path) -> None:
    images, _ = pictures(2)
    write_captions(tmp_path / "c.json", {"colour/000": ["x", "y"], "colour/001": "z"})
    table = caption_table(images, FileCaptions(tmp_path / "c.json"), Says(" y "))
    assert table == {"colour/000": ("x", "y"), "colour/001": ("z", "y")}
    with pytest.raises(ValueError, match="pass one at least"):
        caption_table(images)
    with pytest.raises(ValueError, match="Says returned 1 captions for 2 images"):
        caption_table(images, Says("x", short=1))
    with pytest.raises(ValueError, match="2 images got an empty caption"):
        caption_table(images, Says("  "))


# ---------------------------------------------------------------------- transformers


class Inputs(dict[str, Any]):
    def to(self, device: torch.device) -> Inputs:
        return self


class Processor:
    """Reads mean grey values, writes "grey N" after the prompt."""

    asked: Any = None

    @classmethod
    def from_pretrained(cls, model: str, **options: Any) -> Processor:
        made = cls()
        made.loaded = (model, options)
        return made

    loaded: tuple[str, dict[str, Any]]

    def __call__(self, images: list[Image.Image], return_tensors: str, text: list[str] | None = None) -> Inputs:
        self.asked = text
        grey = [float(sum(image.convert("RGB").getpixel((0, 0)))) for image in images]  # type: ignore[arg-type]
        return Inputs(pixel_values=torch.tensor(grey, dtype=torch.float64)[:, None])

    def batch_decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [f" {self.asked[0] if self.asked else ''} grey {int(row[0])}\n" for row in ids]


class Model:
    dtype = torch.float32

    @classmethod
    def from_pretrained(cls, model: str, **options: Any) -> Model:
        return cls()

    def to(self, device: torch.device) -> Model:
        return self

    def eval(self) -> Model:
        return self

    def generate(self, pixel_values: torch.Tensor, **options: Any) -> torch.Tensor:
        assert pixel_values.dtype == torch.float32 and not torch.is_grad_enabled()
        self.options = options
        self.batches = [*getattr(self, "batches", []), len(pixel_values)]
        return pixel_values.long()


@pytest.fixture(params=["AutoModelForImageTextToText", "AutoModelForVision2Seq"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = SimpleNamespace(AutoProcessor=Processor, __version__="0", **{request.param: Model})
    monkeypatch.setitem(sys.modules, "transformers", stub)


def test_a_transformers_model_writes_captions(library: None) -> None:
    images, _ = pictures(5)
    expected = [f"grey {sum(images.open(i).getpixel((0, 0)))}" for i in range(5)]  # type: ignore[arg-type]
    captioner = TransformersCaptioner("some/model", batch_size=2, revision="abc")
    assert captioner.caption(images) == expected
    assert captioner.model.batches == [2, 2, 1] and captioner.processor.loaded == ("some/model", {"revision": "abc"})
    assert captioner.model.options == {"max_new_tokens": 30, "num_beams": 1, "do_sample": False}
    assert captioner.processor.asked is None and isinstance(captioner, Captioner)
    asked = TransformersCaptioner("some/model", prompt="a picture of")
    assert asked.caption(images) == expected and asked.processor.asked == ["a picture of"] * 5


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'ogenlib\[captions\]'"):
        TransformersCaptioner("some/model")
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="4.0", AutoProcessor=Processor))
    with pytest.raises(ImportError, match=r"transformers 4.0 has no AutoModelForImageTextToText"):
        TransformersCaptioner("some/model")
    with pytest.raises(ValueError, match="batch_size=0"):
        TransformersCaptioner("some/model", batch_size=0)


# ---------------------------------------------------------------------- emoji


def concept(key: str) -> str:
    return key.split("/")[1]


def test_no_caption_says_a_test_concept() -> None:
    data = load_dataset("emoji-categories")
    tested = {concept(key) for key in data.test.keys}
    table = caption_table(data.train, EmojiCaptions(data))
    assert list(table) == data.train.keys
    whole_words = Unsaid(tested)
    classes = {data.templates[0].format(name) for name in data.classnames}
    said = [text for texts in table.values() for text in texts if text not in classes]
    assert len(said) > 700 and not any(map(whole_words, said))
    # by another route, for single words: none of them is a test concept's name
    single = {NAMES[i].lower() for i in tested if NAMES[i].isalpha()}
    assert len(single) > 100 and not single & {word for text in said for word in text.lower().replace(",", "").split()}
    named = [key for key, texts in table.items() if texts[0] == f"an icon of a {NAMES[concept(key)]}."]
    assert 300 < len(named) < len(table)  # some names hold a test concept's
    assert EmojiCaptions(data).caption(data.train) == [texts[0] for texts in table.values()]
    assert all(1 <= len(texts) <= 4 for texts in table.values())
    # what further tests show is not said either
    keys = data.train.keys
    trained = {NAMES[concept(key)].lower(): key for key in keys if NAMES[concept(key)].isalpha()}
    name, key = next(
        (word, key)
        for key, texts in table.items()
        for word in " ".join(texts).lower().replace(",", "").split()
        if trained.get(word, key) != key
    )
    further, own = (data.train.subset([keys.index(one)]) for one in (trained[name], key))
    said = " ".join(EmojiCaptions(data, [further]).table(own)[key]).lower().replace(",", "")
    assert name not in said.split()


def test_captions_are_worded_as_those_of_retrieval() -> None:
    data = load_dataset("emoji-concepts/food-drink")
    table = EmojiCaptions(data).table(data.train)
    catalogue = {c.id: c for c in concepts()}
    assert all(set(texts) <= set(concept_captions(catalogue[concept(key)])) for key, texts in table.items())
    fox = Concept("1f98a", "fox", ("animal", "face", "wild"), "animals-nature", "animal-mammal")
    whole = concept_captions(fox)
    assert len(whole) == 4 and concept_captions(fox, lambda text: False) == whole
    assert concept_captions(fox, lambda text: "fox" in text) == whole[3:]  # the tags alone
    assert concept_captions(fox, lambda text: True) == ()


def test_a_concept_that_is_trained_and_tested_may_be_named() -> None:
    data = load_dataset("emoji-concepts/food-drink")
    table = EmojiCaptions(data).table(data.train)
    assert all(texts[0] == f"an icon of a {NAMES[concept(key)]}." for key, texts in table.items())
    split = base_new_split(data.classnames)
    base = EmojiCaptions(data).table(data.train.of_classes(split.base))
    new = Unsaid(c.id for c in concepts() if c.name in split.new and c.group == "food-drink")
    assert not any(new(text) for texts in base.values() for text in texts)


def test_the_pool_shows_no_test_concept() -> None:
    data = load_dataset("emoji-categories")
    images, captions = emoji_pool(data)
    tested = {concept(key) for key in data.test.keys}
    shown = {concept(key) for key in images.keys}
    assert len(images) > 3000 and list(captions) == images.keys and set(images.domains) == set(PRETRAINING_SETS)
    unsaid = Unsaid(tested)
    assert not shown & tested and not any(unsaid(t) for texts in captions.values() for t in texts)
    assert images.open(0).size == (64, 64)
    split = base_new_split(data.classnames)
    fewer, _ = emoji_pool(data, ["twemoji"], without=split.new)
    gone = {concept(key) for key in data.train.of_classes(split.new).keys}
    assert gone & shown and not gone & {concept(key) for key in fewer.keys} and fewer.domains[0] == "twemoji"
    food = load_dataset("emoji-concepts/food-drink").test
    no_emoji = ImageSet([Item(Image.new("RGB", (2, 2)), 0, key="x")], ["x"])
    less, _ = emoji_pool(data, ["twemoji"], tested=[food, no_emoji])
    kept = {concept(key) for key in less.keys}
    assert kept and not kept & {concept(key) for key in food.keys} and shown & {concept(key) for key in food.keys}


def test_the_bundled_model_can_read_every_caption(clip: Backbone) -> None:
    data = load_dataset("emoji-categories")
    _, pool = emoji_pool(data, ["twemoji"])
    texts = [text for table in (pool, EmojiCaptions(data).table(data.train)) for own in table.values() for text in own]
    assert len(clip.text.tokenize(texts)) == len(texts) > 4000


def test_other_pictures_are_no_emoji() -> None:
    data = load_dataset("emoji-categories")
    images = ImageSet([Item(Image.new("RGB", (2, 2)), 0, key="noto/none")], ["x"])
    with pytest.raises(ValueError, match="'noto/none' is no key of an embedded emoji"):
        EmojiCaptions(data).caption(images)
    with pytest.raises(ValueError, match="icon_set"):
        emoji_pool(data, ["clip-art"])
    with pytest.raises(ValueError, match="no class"):
        emoji_pool(data, without=["unheard of"])

"""Images with captions: plain values, and the Karpathy splits of COCO and Flickr30k read from your disk.

The splits are those of "Deep Visual-Semantic Alignments for Generating Image Descriptions" (Karpathy & Fei-Fei, CVPR
2015, https://arxiv.org/abs/1412.2306), a JSON file each: ``dataset_coco.json``, ``dataset_flickr30k.json``. Nothing is
downloaded. In training every image is a class of its own, named by its key, whose texts are its captions.

Notation: `N` images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ogenlib.data.dataset import Dataset, ImageSet, Item, short_hash
from ogenlib.data.listing import brief
from ogenlib.utils.documents import read_json

SPLITS = ("train", "restval", "val", "test")  # restval: images of COCO's validation set that are left over
PLAIN = ("{}",)  # the template of texts that are sentences already


@dataclass(frozen=True)
class CaptionedImages:
    """N images, each with at least one caption.

    items: in a fixed order; labels are not used.
    captions: of each image, several, not always as many.

    Raises ValueError for an image without a caption, an empty caption, or a key that two images share.
    """

    items: tuple[Item, ...]
    captions: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.items) != len(self.captions):
            raise ValueError(f"{len(self.items)} images have {len(self.captions)} lists of captions; give one each")
        seen: set[str] = set()
        for item, texts in zip(self.items, self.captions, strict=True):
            if isinstance(texts, str) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ValueError(f"{item.file}: captions are {texts!r}; give a list of texts with words in them")
            if item.key in seen:
                raise ValueError(f"{item.file}: two images have the key {item.key!r}; give all captions to one image")
            seen.add(item.key)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def keys(self) -> list[str]:
        return [item.key for item in self.items]

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """Key -> captions: the `texts` that methods trained on pairs take, with the keys as names."""
        return dict(zip(self.keys, self.captions, strict=True))

    def images(self, classnames: Sequence[str] | None = None) -> ImageSet:
        """Every image as a class of its own; `classnames` (default: the keys) may hold other names besides."""
        names = tuple(self.keys if classnames is None else classnames)
        label = {name: i for i, name in enumerate(names)}
        return ImageSet((Item(i.image, label[i.key], i.domain, i.key) for i in self.items), names)

    def hash(self) -> str:
        """16 hex digits over keys, domains and captions."""
        return short_hash([[i.key, i.domain, texts] for i, texts in zip(self.items, self.captions, strict=True)])


@dataclass(frozen=True)
class CaptionDataset:
    """Training and test images with captions; no image is in both (ValueError).

    info: JSON-able facts for the report.
    """

    name: str
    train: CaptionedImages
    test: CaptionedImages
    val: CaptionedImages | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = sorted(set(self.train.keys) & set(self.test.keys))
        if shared:
            raise ValueError(f"{self.name}: {shared[:5]} are trained and tested on; put each image on one side")

    def as_dataset(self) -> Dataset:
        """Training and test images over one list of names, their keys, with the template ``{}``."""
        names = (*self.train.keys, *self.test.keys)
        return Dataset(self.name, self.train.images(names), self.test.images(names), templates=PLAIN, info=self.info)

    def hash(self) -> str:
        """16 hex digits over training and test images and their captions."""
        return short_hash([self.train.hash(), self.test.hash()])


def read_karpathy(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, restval: bool = True
) -> CaptionDataset:
    """A Karpathy-split JSON file.

    Its images are entries of ``filepath`` (COCO only), ``filename``, ``split`` and ``sentences``, each with ``raw``
    (or ``tokens``, which are joined). Captions are kept as they stand but for outer spaces; empty ones are left out.

    Args:
        root: where ``filepath/filename`` starts (Flickr30k: the folder of the pictures); None for the JSON's folder.
            Files are opened when they are used; the first of every split must be there.
        restval: train on COCO's leftover validation images too, as most papers do (113,287 images; 82,783 without).

    Raises:
        FileNotFoundError: the JSON file, or the first image of a split, is not there.
        ValueError: not of this form, an image without a caption, an unknown split, or no training or test images.
    """
    file = Path(path)
    document = read_json(file, what="a Karpathy split", fix="pass the split's JSON file, as dataset_coco.json")
    entries = document.get("images") if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} has no list 'images'; pass a Karpathy split, as dataset_flickr30k.json")
    folder = file.parent if root is None else Path(root)
    by_split: dict[str, list[tuple[Item, tuple[str, ...]]]] = {split: [] for split in SPLITS}
    for number, entry in enumerate(entries):
        split, item, texts = _entry(file, number, entry, folder)
        by_split[split].append((item, texts))
    if restval:
        by_split["train"] += by_split["restval"]
    told = document.get("dataset")
    name = told if told and isinstance(told, str) else file.stem.removeprefix("dataset_")
    parts = {split: _split(file, split, by_split[split]) for split in ("train", "test", "val") if by_split[split]}
    for split in ("train", "test"):
        if split not in parts:
            raise ValueError(f"{file} has no images of the split {split!r}; it has {_counts(by_split)}")
    info = {"file": file.name, "restval_in_train": restval and bool(by_split["restval"]), "skipped": []}
    return CaptionDataset(name, parts["train"], parts["test"], parts.get("val"), info)


def _entry(file: Path, number: int, entry: Any, folder: Path) -> tuple[str, Item, tuple[str, ...]]:
    where = f"{file}: entry {number}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("filename"), str):
        raise ValueError(f"{where} has no 'filename'; pass a Karpathy split, as dataset_coco.json")
    split = entry.get("split")
    if split not in SPLITS:
        raise ValueError(f"{where} ({entry['filename']}) is of the split {brief(split)}; known are {', '.join(SPLITS)}")
    below = entry.get("filepath")
    key = "/".join(part for part in (below if isinstance(below, str) else "", entry["filename"]) if part)
    texts = tuple(text for text in map(_sentence, _list(entry.get("sentences"))) if text)
    if not texts:
        raise ValueError(f"{where} ({key}) has no 'sentences' with words; every image needs a caption")
    return split, Item(folder / key, 0, key=key), texts


def _sentence(sentence: Any) -> str:
    if not isinstance(sentence, Mapping):
        return ""
    raw, tokens = sentence.get("raw"), _list(sentence.get("tokens"))
    return raw.strip() if isinstance(raw, str) else " ".join(token for token in tokens if isinstance(token, str))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _split(file: Path, split: str, pairs: Iterable[tuple[Item, tuple[str, ...]]]) -> CaptionedImages:
    items, captions = zip(*pairs, strict=True)
    first = Path(items[0].image)
    if not first.is_file():
        raise FileNotFoundError(
            f"{first}: no such image, the first of the split {split!r} of {file.name}; pass root=DIR (--root DIR), the "
            f"folder in which {items[0].key} lies"
        )
    return CaptionedImages(items, captions)


def _counts(by_split: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{len(images)} of {split}" for split, images in by_split.items() if images) or "none"

"""Captions of images: from whatever writes them, to a table of image key and texts, to a file and back.

Notation: `N` images.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ogenlib.data.dataset import ImageSet, short_hash
from ogenlib.data.listing import brief
from ogenlib.data.table import read_table
from ogenlib.utils.documents import read_json, write_json
from ogenlib.utils.files import atomic_write

CaptionTable = dict[str, tuple[str, ...]]
"""The captions of an image by its key."""
SUFFIXES = (".json", ".csv")


@runtime_checkable
class Captioner(Protocol):
    """Anything that says what is in images."""

    def caption(self, images: ImageSet) -> list[str]:
        """N texts, one an image, in the images' order."""
        ...


class FileCaptions:
    """Captions somebody wrote to a file.

    Args:
        path: JSON, an object of image key -> text or list of texts; or CSV with the columns ``key,caption``, a key
            on several lines for several texts. A key is an image's name in its dataset (`ImageSet.keys`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another form, or one without a single caption.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.texts = read_captions(self.path)

    def caption(self, images: ImageSet) -> list[str]:
        """The first text of every image; ValueError naming images that the file does not have."""
        return [texts[0] for texts in self.table(images).values()]

    def table(self, images: ImageSet) -> CaptionTable:
        """All texts of every image by its key; ValueError naming images that the file does not have."""
        missing = [key for key in images.keys if key not in self.texts]
        if missing:
            raise ValueError(
                f"{self.path}: no caption for {len(missing)} of {len(images)} images, the first {missing[:3]} "
                f"(it has {list(self.texts)[:3]}); keys must be those of ImageSet.keys"
            )
        return {key: self.texts[key] for key in images.keys}


def caption_table(images: ImageSet, *captioners: Captioner) -> CaptionTable:
    """Key of every image -> its texts: one of each captioner, or all that it has (`table`), repeats left out.

    Raises:
        ValueError: no captioner, one that does not return N texts, or an image that got no words at all.
    """
    if not captioners:
        raise ValueError("no captioner: pass one at least, as FileCaptions('captions.json')")
    texts_of_key: dict[str, dict[str, None]] = {key: {} for key in images.keys}
    for captioner in captioners:
        for key, texts in _texts_of(captioner, images).items():
            texts_of_key[key] |= dict.fromkeys(text.strip() for text in texts if text.strip())
    silent = [key for key, texts in texts_of_key.items() if not texts]
    if silent:
        raise ValueError(f"{len(silent)} images got an empty caption, the first {silent[:3]}; leave them out")
    return {key: tuple(texts) for key, texts in texts_of_key.items()}


def _texts_of(captioner: Captioner, images: ImageSet) -> Mapping[str, Sequence[str]]:
    if hasattr(captioner, "table"):
        return captioner.table(images)
    texts = captioner.caption(images)
    if isinstance(texts, str) or len(texts) != len(images):
        raise ValueError(f"{type(captioner).__name__} returned {len(texts)} captions for {len(images)} images")
    return {key: (text,) for key, text in zip(images.keys, texts, strict=True)}


def read_captions(path: str | os.PathLike[str]) -> CaptionTable:
    """Key -> texts of a JSON or CSV file; see `FileCaptions`."""
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file of captions (JSON, or CSV with the columns key,caption)")
    table = _read_csv(file) if _suffix(file) == ".csv" else _read_json(file)
    if not table:
        raise ValueError(f"{file}: holds no captions; give it lines of key,caption or a JSON object of key -> text")
    return table


def write_captions(path: str | os.PathLike[str], table: Mapping[str, str | Sequence[str]]) -> None:
    """Write captions as JSON or CSV, by the name's ending; whole or not at all."""
    every = {key: _as_texts(texts) for key, texts in table.items()}
    if _suffix(Path(path)) == ".json":
        write_json(path, {key: list(texts) for key, texts in every.items()})
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "caption"])
        writer.writerows((key, text) for key, texts in every.items() for text in texts)


def describe_captions(table: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """How many images and texts a table has, and a hash of all: what a saved run says of it."""
    every = {key: _as_texts(table[key]) for key in sorted(table)}
    texts = sum(map(len, every.values()))
    return {"images": len(every), "texts": texts, "hash": short_hash(every)}


def _as_texts(texts: str | Sequence[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: captions are kept as {' or '.join(SUFFIXES)}; name the file so")
    return suffix


def _read_csv(path: Path) -> CaptionTable:
    texts_of_key: dict[str, list[str]] = {}
    for number, row in read_table(path, ("key", "caption"))[1]:
        if not row["key"] or not row["caption"]:
            raise ValueError(f"{path}, line {number}: needs a key and a caption")
        texts_of_key.setdefault(row["key"], []).append(row["caption"])
    return {key: tuple(texts) for key, texts in texts_of_key.items()}


def _read_json(path: Path) -> CaptionTable:
    what = "an object of key -> text or list of texts"
    content = read_json(path, dict[str, str | list[str]], what=what, fix="write captions so, or as CSV")
    for key, texts in content.items():
        if not _as_texts(texts) or not all(text.strip() for text in _as_texts(texts)):
            raise ValueError(f"{path}: the captions of {key!r} are {brief(texts)}, not a text or a list of texts")
    return {key: _as_texts(texts) for key, texts in content.items()}

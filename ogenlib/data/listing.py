"""What a published dataset says it holds, as plain values, and small helpers of everything that reads it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ogenlib.data.layouts import Layout
from ogenlib.utils import documents

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Entry(NamedTuple):
    """One image. file: relative to the images' folder, with slashes. split: train, val, test, or "" for undivided."""

    file: str
    label: int
    split: str
    domain: str = ""


@dataclass
class Listing:
    """What a dataset says it holds.

    source: what said so. listed: whether that was a file, so that images it names can be missing.
    border: pixels to cut off every side of an image.
    """

    source: str
    classnames: list[str]
    entries: list[Entry]
    listed: bool = False
    border: int = 0
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def image_files(folder: Path) -> Iterator[str]:
    """Names of the images directly in `folder`, sorted, hidden ones left out."""
    return (
        name
        for name in sorted(p.name for p in folder.iterdir())
        if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES)
    )


def need(path: Path, layout: Layout) -> Path:
    """`path` if the file is there; FileNotFoundError naming it and where it comes from if not."""
    if not path.is_file():
        raise FileNotFoundError(f"{layout.name}: no file {path}; {layout.page} says where it comes from")
    return path


def read_lines(path: Path) -> list[str]:
    """The lines without outer spaces; ValueError for what is no UTF-8 text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text ({error}); get it anew") from error


def read_json(path: Path, what: str, kind: Any = Any) -> Any:
    """The JSON value, of the type `kind`; ValueError naming the file and `what` it should be."""
    return documents.read_json(path, kind, what=what, fix="get it anew")


def brief(value: Any) -> str:
    """What a message shows of a value that does not belong there: some of it, not deep, on one line."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 60
    return shown.repr(value)


def count_by(entries: Iterable[Entry]) -> dict[str, int]:
    """Images by split."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.split] = counts.get(entry.split, 0) + 1
    return counts

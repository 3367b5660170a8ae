"""Reading a published dataset from its folder: which reader, and those of split_zhou files and FGVC's lists.

Orders are those of CoOp: items as the files list them, labels as they are written there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ogenlib.data.domains import read_domains
from ogenlib.data.imagenet import read_numbered, read_wordnet
from ogenlib.data.layouts import Layout
from ogenlib.data.listing import Entry, Listing, brief, need, read_json, read_lines
from ogenlib.data.objectnet import read_objectnet
from ogenlib.data.place import Place, split_file

Reader = Callable[[Layout, Place, Path, Path], Listing]


def read_listing(layout: Layout, place: Place) -> Listing:
    """What `layout` holds at `place`.

    Raises FileNotFoundError naming the file or folder that is missing, where it was looked for and where it comes
    from; ValueError naming the line or folder that does not fit.
    """
    if place.home is None or place.images is None:
        raise FileNotFoundError(
            f"{layout.name}: found no {layout.homes[0]}/{'' if layout.images[0] == '.' else layout.images[0] + '/'} "
            f"below {place.root} (looked at {', '.join(place.looked)}); put it there as {layout.page} says"
        )
    listing = _READERS[layout.kind](layout, place, place.home, place.images)
    if not listing.entries:
        raise ValueError(f"{layout.name}: {listing.source} lists no image; unpack it again as {layout.page} says")
    return listing


def _read_split(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    path = need(split_file(layout, home, images), layout)
    split = read_json(path, "a split_zhou file", dict[str, list[Any]])
    if not {"train", "test"} <= set(split):
        raise ValueError(f"{path}: is no split_zhou file (an object with train, val and test); {layout.page} has it")
    entries: list[Entry] = []
    names: dict[int, str] = {}
    for part in ("train", "val", "test"):
        for number, row in enumerate(split.get(part, ())):
            try:
                file, label, name = msgspec.convert(row, tuple[str, int, str])
            except msgspec.ValidationError as error:
                raise ValueError(
                    f"{path}: {part} item {number} is {brief(row)}; expected [image path, label, class name]"
                ) from error
            if names.setdefault(label, name) != name:
                raise ValueError(f"{path}: label {label} is {names[label]!r} and {name!r}; a label has one name")
            entries.append(Entry(file.lstrip("/"), label, part))
    if sorted(names) != list(range(len(names))):
        gap = next(i for i in range(len(names) + 1) if i not in names)
        raise ValueError(f"{path}: labels must be 0, 1, 2, ... without a gap, and {gap} is missing; get it anew")
    return Listing(str(path), [names[label] for label in sorted(names)], entries, listed=True)


def _read_lists(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    folder = images.parent
    names = [line for line in read_lines(need(folder / "variants.txt", layout)) if line]
    position = {name: i for i, name in enumerate(names)}
    entries = []
    for part in ("train", "val", "test"):
        path = need(folder / f"images_variant_{part}.txt", layout)
        for number, line in enumerate(read_lines(path), 1):
            image, _, name = line.partition(" ")
            if name not in position:
                raise ValueError(f"{path} line {number}: {name!r} is not in variants.txt; get both files anew")
            entries.append(Entry(f"{image}.jpg", position[name], part))
    return Listing(str(folder / "images_variant_*.txt"), names, entries, listed=True)


_READERS: dict[str, Reader] = {
    "split": _read_split, "lists": _read_lists, "wordnet": read_wordnet, "numbered": read_numbered,
    "objectnet": read_objectnet, "domains": read_domains,
}  # fmt: skip

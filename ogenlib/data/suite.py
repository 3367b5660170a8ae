"""Published datasets by name, read from the folders people already have; nothing is downloaded.

Items, their order and the class names are those of CoOp and Dassl, so splits and few-shot picks are too.

Notation: `C` classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ogenlib.data.check import check_images
from ogenlib.data.dataset import Dataset, ImageSet, Item
from ogenlib.data.layouts import LAYOUTS, Layout, close_names, find_layout
from ogenlib.data.listing import Entry, Listing
from ogenlib.data.objectnet import Cropped, refuse_truncated
from ogenlib.data.place import Files, locate
from ogenlib.data.readers import read_listing
from ogenlib.data.split import stratified_rows

log = logging.getLogger(__name__)
TEST_FRACTION, SPLIT_SEED = 0.3, 0  # where nothing divides a domain's images: as `LoadOptions`


def suite_layout(name: str) -> Layout:
    """The layout of a published dataset; ValueError naming the closest ones for an unknown name."""
    layout = find_layout(name)
    if layout is None:
        close = close_names(name, [])
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"unknown dataset {name!r}.{hint} Known: {', '.join(LAYOUTS)}")
    return layout


def load_suite(
    name: str | Layout,
    root: str | os.PathLike[str],
    *,
    test_domains: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    skip_bad: bool = False,
    progress: bool = False,
) -> Dataset:
    """A published dataset from `root`, the folder that holds its folder (or its folder itself).

    name: see `find_layout`; or a layout of your own.
    test_domains: for datasets of domains: test on all images of these that Dassl tests on, train and validate on
        the other domains only. Without it every domain is divided as its lists or folders say, or 7 to 3 by class.
    templates: other prompts than the published one.
    skip_bad: leave out, and list in `info["skipped"]`, images that are missing or cannot be read; decodes every image.
    `info["differs"]` says how the numbers differ from the published ones (also a warning in the log).
    Datasets that are for testing only (ImageNet-V2, ...) have an empty training set.
    Raises ValueError for an unknown name or domain and files that do not fit, FileNotFoundError for what is missing.
    """
    layout = name if isinstance(name, Layout) else suite_layout(name)
    place = locate(layout, root)
    listing = read_listing(layout, place)
    refuse_truncated(layout, listing)
    images = Path(place.images or place.root)
    skipped: list[dict[str, str]] = []
    entries = _present(layout, listing, images, skip_bad, skipped)
    splits, how = _divide(layout, listing, entries, test_domains)
    sets = {split: _image_set(listing, images, chosen) for split, chosen in splits.items()}
    if skip_bad:
        sets = {split: _readable(part, skipped, progress) for split, part in sets.items()}
    differs = [*listing.notes, *differences(layout, listing)]
    if differs:
        log.warning("%s: %s; `ogen data check %s` says more", layout.name, "; ".join(differs), layout.name)
    info = {
        "source": listing.source,
        "root": str(place.root),
        "split": how,
        "skipped": skipped,
        "differs": differs,
        "layout": place.notes,
        **listing.info,
    }
    prompts = tuple(templates) if templates is not None else (layout.template,)
    empty = ImageSet((), listing.classnames)
    return Dataset(layout.name, sets.get("train", empty), sets.get("test", empty), sets.get("val"), prompts, info)


def differences(layout: Layout, listing: Listing) -> list[str]:
    """How the numbers of images and classes differ from the published ones."""
    lines = []
    if layout.classes and len(listing.classnames) != layout.classes:
        lines.append(f"{len(listing.classnames)} classes, published are {layout.classes}")
    for split, expected in layout.counts.items():
        count = sum(entry.split == split for entry in listing.entries)
        if count != expected:
            lines.append(f"{count:,} {split} images, published are {expected:,}")
    return lines


def image_of(listing: Listing, images: Path, file: str) -> Any:
    """What an `Item` holds for one file: its path, or a function that cuts the border off."""
    path = images / file
    return Cropped(path, listing.border) if listing.border else path


def _present(
    layout: Layout, listing: Listing, images: Path, skip_bad: bool, skipped: list[dict[str, str]]
) -> list[tuple[Entry, str]]:
    """Entries with the file that is there; those without one are skipped or an error."""
    if not listing.listed:
        return [(entry, entry.file) for entry in listing.entries]
    files = Files(images)
    located = [(entry, files.find(entry.file)) for entry in listing.entries]
    missing = [entry.file for entry, file in located if file is None]
    if missing and not skip_bad:
        raise FileNotFoundError(
            f"{layout.name}: {len(missing):,} of {len(located):,} images that {listing.source} lists are not below "
            f"{images}, the first {missing[0]}; `ogen data check {layout.name} --root DIR` says which, or pass "
            f"skip_bad=True to leave them out and count them"
        )
    skipped += [{"file": str(images / file), "reason": "no such file"} for file in missing]
    return [(entry, file) for entry, file in located if file is not None]


def _divide(
    layout: Layout, listing: Listing, entries: list[tuple[Entry, str]], test_domains: Sequence[str] | None
) -> tuple[Mapping[str, list[tuple[Entry, str]]], str]:
    if test_domains is not None:
        return _leave_out(layout, entries, test_domains)
    splits: dict[str, list[tuple[Entry, str]]] = {}
    undivided = [row for row in entries if not row[0].split]
    for row in entries:
        if row[0].split:
            splits.setdefault(row[0].split, []).append(row)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")  # PACS: the lists are for training and validation on other domains
    if not undivided:
        return splits, "given"
    labels = [f"{entry.domain}/{listing.classnames[entry.label]}" for entry, _ in undivided]
    chosen = stratified_rows(labels, [entry.file for entry, _ in undivided], TEST_FRACTION, SPLIT_SEED)
    for i, row in enumerate(undivided):
        splits.setdefault("test" if i in chosen else "train", []).append(row)
    return splits, f"seeded by domain and class: test_fraction={TEST_FRACTION}, seed={SPLIT_SEED}"


def _leave_out(
    layout: Layout, entries: list[tuple[Entry, str]], test_domains: Sequence[str]
) -> tuple[Mapping[str, list[tuple[Entry, str]]], str]:
    names = [test_domains] if isinstance(test_domains, str) else list(test_domains)
    unknown = [name for name in names if name not in layout.domains]
    if unknown or not names:
        known = ", ".join(layout.domains) or f"none, {layout.name} has a single domain"
        raise ValueError(f"test_domains is {names}; the domains of {layout.name} are {known}")
    if set(names) == set(layout.domains):
        raise ValueError(f"test_domains is all of {', '.join(names)}; leave one or more domains to train on")
    splits: dict[str, list[tuple[Entry, str]]] = {"train": [], "val": []}
    for row in entries:
        if row[0].domain not in names and row[0].split in ("", "train", "val"):
            splits[row[0].split or "train"].append(row)
    targets = [row for row in entries if row[0].domain in names]
    tested = [row for row in targets if row[0].split == "test"]
    splits["test"] = tested or targets
    if not splits["val"]:
        del splits["val"]
    return splits, f"test domains {', '.join(names)}; trained on the others"


def _image_set(listing: Listing, images: Path, files: list[tuple[Entry, str]]) -> ImageSet:
    items = (Item(image_of(listing, images, file), e.label, e.domain, e.file) for e, file in files)
    return ImageSet(items, listing.classnames)


def _readable(images: ImageSet, skipped: list[dict[str, str]], progress: bool) -> ImageSet:
    problems = check_images(images, progress=progress)
    skipped += [{"file": problem.file, "reason": problem.reason} for problem in problems]
    bad = {problem.index for problem in problems}
    return images.subset([i for i in range(len(images)) if i not in bad])

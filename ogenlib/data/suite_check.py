"""What is missing or different in a copy of a published dataset: found by listing folders, optionally by decoding.

Notation: `C` classes.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ogenlib.data.check import check_images
from ogenlib.data.dataset import ImageSet, Item
from ogenlib.data.layouts import Layout
from ogenlib.data.listing import Listing
from ogenlib.data.objectnet import FULL_FOLDERS, FULL_IMAGES, refuse_truncated
from ogenlib.data.place import Files, Place, locate
from ogenlib.data.readers import read_listing
from ogenlib.data.suite import differences, image_of, suite_layout


@dataclass
class SuiteReport:
    """What `check_suite` found.

    counts: by split and class name, (images that should be there, images that are there).
    problems: what keeps the dataset from being loaded or compared, a line each.
    missing, unreadable: files, and for the latter why.
    notes: differences that do no harm. looked: every place that was looked at.
    """

    name: str
    root: str
    source: str = ""
    images: str = ""
    counts: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    read: bool = False

    @property
    def ok(self) -> bool:
        """Whether the copy is whole and the published one."""
        return not (self.problems or self.missing or self.unreadable)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "ok": self.ok}

    def summary(self) -> str:
        """One line: what is wrong first of all; "" if nothing is."""
        problems = list(self.problems)
        if self.missing:
            problems.append(f"{len(self.missing):,} images are missing, the first {self.missing[0]}")
        if self.unreadable:
            file, reason = self.unreadable[0]
            problems.append(f"{len(self.unreadable):,} images cannot be read, the first {file} ({reason})")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{self.name}: {problems[0]}{more}" if problems else ""

    def lines(self, most: int = 20) -> list[str]:
        """The report for a person: totals, then at most `most` lines of each kind of finding."""
        lines = [f"{self.name}: {'as published' if self.ok else 'differs from what is published'}"]
        lines += [f"images: {self.images}", f"listed by: {self.source}"] if self.images else []
        different: list[str] = []
        for split, counts in self.counts.items():
            expected, present = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
            lines.append(f"{split}: {present:,} of {expected:,} images, {len(counts)} classes")
            different += [f"{split} {name}: {b} of {a}" for name, (a, b) in counts.items() if a != b]
        lines.append("images decoded: " + ("all" if self.read else "none (--read decodes them)"))
        for title, found_lines in {
            "problems": self.problems,
            "classes with other counts": different,
            "missing images": self.missing,
            "images that cannot be read": [f"{file}: {reason}" for file, reason in self.unreadable],
            "notes": self.notes,
            "looked at": self.looked if not self.images or self.problems else [],
        }.items():
            if found_lines:
                lines += [f"{title}: {len(found_lines)}", *(f"  {line}" for line in found_lines[:most])]
                lines += [f"  ... and {len(found_lines) - most} more"] if len(found_lines) > most else []
        return lines


def check_suite(
    name: str | Layout, root: str | os.PathLike[str], *, read: bool = False, progress: bool = False
) -> SuiteReport:
    """Compare the copy of a published dataset below `root` with what its files list and what is published.

    read: decode every image too.
    What is missing is reported, not raised; nothing is written or downloaded. Raises ValueError for an unknown name,
    FileNotFoundError if `root` is no folder.
    """
    layout = name if isinstance(name, Layout) else suite_layout(name)
    place = locate(layout, root)
    report = SuiteReport(layout.name, str(place.root), looked=place.looked, notes=list(place.notes), read=read)
    try:
        listing = read_listing(layout, place)
    except (FileNotFoundError, ValueError) as error:
        report.problems.append(str(error).removeprefix(f"{layout.name}: "))
        return report
    images = Path(place.images or place.root)
    report.source, report.images = listing.source, str(images)
    files = _compare(report, listing, images)
    report.problems += [*listing.notes, *differences(layout, listing)]
    _objectnet(report, layout, listing, place)
    if read:
        items = [Item(image_of(listing, images, file), label, key=file) for file, label in files]
        problems = check_images(ImageSet(items, listing.classnames), progress=progress)
        report.unreadable = [(problem.file, problem.reason) for problem in problems]
    return report


def _compare(report: SuiteReport, listing: Listing, images: Path) -> list[tuple[str, int]]:
    """Count by split and class; the files that are there, with their labels, each once."""
    files = Files(images)
    expected: dict[str, Counter[int]] = {}
    counted: dict[str, Counter[int]] = {}
    present: dict[str, int] = {}
    twice = 0
    for entry in listing.entries:
        split = entry.split or "undivided"
        expected.setdefault(split, Counter())[entry.label] += 1
        file = files.find(entry.file) if listing.listed else entry.file
        if file is None:
            report.missing.append(entry.file)
            continue
        twice += file != entry.file
        counted.setdefault(split, Counter())[entry.label] += 1
        present[file] = entry.label
    names = listing.classnames
    for split, counts in expected.items():
        there = counted.get(split, Counter())
        report.counts[split] = {names[label]: (counts[label], there[label]) for label in sorted(counts)}
    if twice:
        report.notes.append(f"{twice:,} images are one folder deeper than listed (a/a/b.jpg for a/b.jpg)")
    if listing.listed and (unlisted := files.unlisted(present)):
        report.notes.append(f"{unlisted:,} images in the same folders are in no list and are not used")
    return list(present.items())


def _objectnet(report: SuiteReport, layout: Layout, listing: Listing, place: Place) -> None:
    if layout.kind != "objectnet" or place.images is None:
        return
    try:
        refuse_truncated(layout, listing)
    except ValueError as error:
        report.problems = [str(error).removeprefix(f"{layout.name}: ")]
    folders = [path for path in place.images.iterdir() if path.is_dir() and path.name[0] != "."]
    total = sum(len(os.listdir(folder)) for folder in folders)
    if (len(folders), total) != (FULL_FOLDERS, FULL_IMAGES):
        report.notes.append(
            f"{total:,} images in {len(folders)} folders in all; the full set has {FULL_IMAGES:,} in {FULL_FOLDERS}"
        )

"""Look at every image before a long run does: undecodable files, counts, the same picture in two splits.

Notation: `C` classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from ogenlib.data.dataset import Dataset, ImageSet, image_digest, read_failure


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used, and why. index: its position in the image set that was checked."""

    index: int
    file: str
    reason: str
    split: str = ""


@dataclass(frozen=True)
class Duplicate:
    """The same bytes in two splits: what was learned there is tested here."""

    split: str
    file: str
    other_split: str
    other_file: str


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found.

    counts: images by split and class name, zeros included.
    empty: class names without any image, in any split.
    """

    name: str
    hash: str
    counts: dict[str, dict[str, int]]
    problems: tuple[Problem, ...]
    duplicates: tuple[Duplicate, ...]
    empty: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the images as they stand (what was skipped does not count)."""
        return not (self.problems or self.duplicates or self.empty)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "ok": self.ok}

    def lines(self, most: int = 20) -> list[str]:
        """The report for a person: totals, then at most `most` lines of each kind of finding."""
        lines = [f"{self.name}: {len(next(iter(self.counts.values())))} classes, split hash {self.hash}"]
        for split, counts in self.counts.items():
            held = [count for count in counts.values() if count]
            spread = f"{min(held)} to {max(held)} a class" if held else "none"
            lines.append(f"{split}: {sum(held)} images of {len(held)} classes, {spread}")
        findings = {
            "cannot be used": [f"{p.split} {p.file}: {p.reason}" for p in self.problems],
            "same bytes in two splits": [
                f"{d.split} {d.file} = {d.other_split} {d.other_file}" for d in self.duplicates
            ],
            "classes without images": list(self.empty),
            "skipped when loading": [f"{s['file']}: {s['reason']}" for s in self.skipped],
        }
        for title, details in findings.items():
            if details:
                lines += [f"{title}: {len(details)}", *(f"  {line}" for line in details[:most])]
                lines += [f"  ... and {len(details) - most} more"] if len(details) > most else []
        return lines


def check_images(images: ImageSet, *, progress: bool = False) -> list[Problem]:
    """Decode every image; the ones that fail, in order. Costs one decode an image, keeps none in memory."""
    problems = []
    for index in tqdm(range(len(images)), desc="checking images", unit="image", disable=not progress):
        try:
            images.open(index)
        except (FileNotFoundError, ValueError) as error:
            problems.append(Problem(index, images[index].file, read_failure(error)))
    return problems


def check_dataset(dataset: Dataset, *, progress: bool = False) -> DatasetReport:
    """Decode every image, count classes by split, and look for the same bytes in two splits.

    Pictures are compared by the bytes of their file, or by their pixels where there is no file, so a copy
    saved anew (other size, other quality) is not found.
    """
    problems: list[Problem] = []
    duplicates: list[Duplicate] = []
    first_seen: dict[str, tuple[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for split, images in dataset.splits().items():
        by_label = Counter(item.label for item in images)
        counts[split] = {name: by_label[label] for label, name in enumerate(images.classnames)}
        unreadable = check_images(images, progress=progress)
        problems += [Problem(p.index, p.file, p.reason, split) for p in unreadable]
        broken = {p.index for p in unreadable}
        for index, item in enumerate(images):
            if index in broken:
                continue
            other = first_seen.setdefault(image_digest(item.image), (split, item.file))
            if other[0] != split:
                duplicates.append(Duplicate(*other, split, item.file))
    empty = [name for name in dataset.classnames if not any(split[name] for split in counts.values())]
    return DatasetReport(
        name=dataset.name,
        hash=dataset.hash(),
        counts=counts,
        problems=tuple(problems),
        duplicates=tuple(duplicates),
        empty=tuple(empty),
        skipped=tuple(dataset.info.get("skipped", ())),
    )

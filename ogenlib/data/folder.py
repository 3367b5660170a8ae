"""Your own images: class folders, a CSV file, or a list of `(image, label)`.

Notation: `C` classes.
"""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ogenlib.data.check import check_images
from ogenlib.data.dataset import Dataset, ImageSet, Item, check_classnames, normal_name
from ogenlib.data.listing import brief
from ogenlib.data.split import stratified_rows
from ogenlib.data.table import read_table

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"))
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
Classnames = Mapping[Any, str] | Sequence[str]


@dataclass(frozen=True)
class LoadOptions:
    """What the three loaders have in common.

    classnames: a mapping from names or integers as they are written to class names, or the list of all class
        names in order, which integer labels index. Names that a mapping leaves out stay as written.
    test_fraction: where no test split is given, this share of every class's images (at least one, and at
        least one left for training) becomes the test split; 0 puts all in train, 1 all in test. 0.3 is what
        DTD's and CoOp's own random splits leave for testing.
    seed: of that split.
    skip_bad: leave out, and list in `info["skipped"]`, what would otherwise be an error. Decodes every image.
    """

    classnames: Classnames | None = None
    test_fraction: float = 0.3
    seed: int = 0
    skip_bad: bool = False
    templates: Sequence[str] = ("a photo of a {}.",)
    name: str = ""
    progress: bool = False


class Row(NamedTuple):
    """One image as a source lists it. where: how messages name it."""

    image: Any
    label: str | int
    where: str
    key: str = ""
    split: str = ""
    domain: str = ""


@dataclass
class Bad:
    """Raises at the first bad example, or collects them."""

    skip: bool
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, file: str, reason: str, error: type[Exception] = ValueError) -> None:
        if not self.skip:
            raise error(f"{file}: {reason}, or pass skip_bad=True to leave it out and count it")
        self.skipped.append({"file": file, "reason": reason})


def from_folder(root: str | os.PathLike[str], options: LoadOptions | None = None) -> Dataset:
    """`root/class name/image.png`, or `root/{train,val,test}/class name/image.png`.

    Classes are in sorted order of their folders' names, images in sorted order of theirs; only files
    directly in a class folder count, hidden ones and other suffixes are passed over. Keys are paths relative
    to `root`.
    Raises FileNotFoundError if `root` is no folder; ValueError naming the folder if it holds no class
    folders, a class is empty, or two folders differ in case or spaces only.
    """
    options = options or LoadOptions()
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; pass a folder that holds one folder per class")
    bad = Bad(options.skip_bad)
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root}: holds no class folders; expected {root}/class name/image.png")
    named = {folder: SPLITS.get(folder.name.casefold(), "") for folder in folders}
    if all(named.values()) and any(_folders(folder) for folder in folders):
        examples = [example for folder, split in named.items() for example in _class_examples(folder, root, split, bad)]
    else:
        examples = list(_class_examples(root, root, "", bad))
    examples.sort(key=lambda example: str(example.label))  # stable: classes of all splits by name, images as they came
    return assemble(examples, replace(options, name=options.name or root.resolve().name), str(root), bad)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _class_examples(parent: Path, root: Path, split: str, bad: Bad) -> Iterator[Row]:
    seen: dict[str, Path] = {}
    for folder in _folders(parent):
        other = seen.setdefault(normal_name(folder.name), folder)
        if other != folder:
            raise ValueError(
                f"{other} and {folder}: the class names are the same but for case or spaces; "
                f"merge the two folders or rename one"
            )
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not files:
            bad(str(folder), f"the class folder holds no images ({_suffixes()}); add some or delete the folder")
        for file in files:
            key = file.relative_to(root).as_posix()
            yield Row(file, folder.name.strip(), str(file), key, split)


def _suffixes() -> str:
    return " ".join(sorted(SUFFIXES))


def from_csv(
    path: str | os.PathLike[str], options: LoadOptions | None = None, *, root: str | os.PathLike[str] | None = None
) -> Dataset:
    """A UTF-8 CSV file with the columns `path,label` and, if you like, `split` and `domain`.

    Relative paths start at `root`, by default the folder of the CSV file. `label` is a class name, or an
    integer that `classnames=` turns into one; classes are in order of first appearance, or of a `classnames`
    list. `split` is train, val or test. Keys are the paths as written.
    Raises FileNotFoundError for a missing file (naming the line), ValueError for a missing column or a bad
    line.
    """
    options = options or LoadOptions()
    path = Path(path)
    base = path.parent if root is None else Path(root)
    bad = Bad(options.skip_bad)
    columns, lines = read_table(path, ("path", "label"), "perhaps split,domain")
    examples = []
    for number, line in lines:
        where = f"{path} line {number} ({line['path']})"
        split = SPLITS.get(line.get("split", "").casefold(), "")
        if not line["path"] or not line["label"]:
            bad(where, "path or label is empty; fill it in")
        elif "split" in columns and not split:
            bad(where, f"split is {line['split']!r}; write train, val or test in every row, or drop the column")
        else:
            image = base / line["path"]
            examples.append(Row(image, line["label"], where, line["path"], split, line.get("domain", "")))
    if examples and options.classnames is None and all(_is_integer(example.label) for example in examples):
        raise ValueError(
            f"{path}: the labels are integers; name the classes with classnames=['first', 'second', ...] "
            f"(if the digits are the names, list them there)"
        )
    return assemble(examples, replace(options, name=options.name or path.stem), str(path), bad)


def from_list(
    pairs: Iterable[Any], options: LoadOptions | None = None, *, root: str | os.PathLike[str] | None = None
) -> Dataset:
    """`(image, label)` pairs; image is a path (relative ones start at `root`), a PIL image or an array.

    `label` is a class name, or an integer that `classnames=` turns into one; classes are in order of first
    appearance, or of a `classnames` list. The key of a picture without a path is a hash of its pixels.
    Raises TypeError for what is no pair, otherwise as `from_csv`, naming the item (counted from 0).
    """
    options = options or LoadOptions()
    bad = Bad(options.skip_bad)
    examples = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"item {number} is {brief(pair)}; expected (image, label)")
        image, label = pair
        where, key = f"item {number}", ""
        if isinstance(image, (str, os.PathLike)):
            key = Path(image).as_posix()
            where = f"item {number} ({key})"
            image = Path(root or "") / image
        if not isinstance(label, str):
            try:
                label = operator.index(label)
            except TypeError:
                raise TypeError(f"{where}: label {brief(label)} is neither a class name nor an integer") from None
            if options.classnames is None:
                raise ValueError(
                    f"{where}: label {label} is an integer; name the classes with classnames=['first', ...]"
                )
        examples.append(Row(image, label, where, key))
    return assemble(examples, replace(options, name=options.name or "images"), "list", bad)


def _is_integer(label: str | int) -> bool:
    return isinstance(label, int) or (len(label) < 20 and label.lstrip("+-").isdecimal())


def assemble(examples: Sequence[Row], options: LoadOptions, source: str, bad: Bad) -> Dataset:
    """Examples to a dataset: names, files, decoding where asked, then splits."""
    names, labels = _label_examples(examples, options.classnames, source, bad)
    kept: list[tuple[Row, Item]] = []
    for example, label in zip(examples, labels, strict=True):
        if label is None:
            continue
        if isinstance(example.image, Path) and not example.image.is_file():
            bad(example.where, f"there is no image at {example.image}; correct the path or root=", FileNotFoundError)
            continue
        try:
            kept.append((example, Item(example.image, label, example.domain, example.key)))
        except (TypeError, ValueError) as error:
            bad(example.where, str(error), type(error))
    if options.skip_bad:
        images = ImageSet((item for _, item in kept), names)
        problems = {p.index: p for p in check_images(images, progress=options.progress)}
        for problem in problems.values():
            bad(kept[problem.index][0].where, problem.reason)
        kept = [entry for i, entry in enumerate(kept) if i not in problems]
    if not kept:
        why = f"all {len(bad.skipped)} were skipped, the first: {bad.skipped[0]}" if bad.skipped else "it lists none"
        raise ValueError(f"{source}: no image is left ({why})")
    used = {item.label for _, item in kept}
    lost = {label for label in labels if label is not None} - used  # every image of the class was skipped
    live = [label for label in range(len(names)) if label not in lost]
    for label in sorted(lost):
        bad.skipped.append({"file": source, "reason": f"class {names[label]!r} dropped: no image is left"})
    new = {old: i for i, old in enumerate(live)}
    items = [replace(item, label=new[item.label]) for _, item in kept]
    classnames = [names[label] for label in live]
    splits, how = _split(items, [example.split for example, _ in kept], classnames, options)
    info = {
        "source": source,
        "split": how,
        "skipped": bad.skipped,
        "empty_classes": [names[label] for label in live if label not in used],
    }
    sets = {name: ImageSet(chosen, classnames) for name, chosen in splits.items()}
    return Dataset(options.name, sets["train"], sets["test"], sets.get("val"), tuple(options.templates), info)


def _label_examples(
    examples: Sequence[Row], classnames: Classnames | None, source: str, bad: Bad
) -> tuple[list[str], list[int | None]]:
    """Class names in order, and one label an example (None: a bad one that was skipped)."""
    if isinstance(classnames, str):
        raise TypeError(f"classnames is the one string {classnames!r}; pass a list or a mapping")
    if classnames is None or isinstance(classnames, Mapping):
        return _labels_as_met(examples, {str(k): v for k, v in (classnames or {}).items()}, source, bad)
    names = list(check_classnames(classnames))
    return names, [_listed_label(example, names, bad) for example in examples]


def _labels_as_met(
    examples: Sequence[Row], mapping: Mapping[str, str], source: str, bad: Bad
) -> tuple[list[str], list[int | None]]:
    unused = sorted(set(mapping) - {str(example.label) for example in examples})
    if unused:
        raise ValueError(f"{source}: classnames maps {unused[0]!r}, but no image has that label; remove it")
    position: dict[str, int] = {}
    first_use: dict[str, tuple[str, str]] = {}
    labels: list[int | None] = []
    for example in examples:
        written = str(example.label)
        if not isinstance(example.label, str) and written not in mapping:
            bad(example.where, f"label {written} is not in classnames, which maps {sorted(mapping)}; add it there")
            labels.append(None)
            continue
        name = mapping.get(written, written).strip()
        first, place = first_use.setdefault(normal_name(name), (written, example.where))
        if first != written:
            raise ValueError(
                f"{example.where}: the class of label {written!r} is the same, but for case or spaces, as that "
                f"of label {first!r} ({place}); write both alike, or give each its own name with classnames="
            )
        labels.append(position.setdefault(name, len(position)))
    return list(position), labels


def _listed_label(example: Row, names: Sequence[str], bad: Bad) -> int | None:
    if isinstance(example.label, str) and example.label.strip() in names:
        return names.index(example.label.strip())  # a name that looks like a number is still a name
    if _is_integer(example.label):
        if 0 <= int(example.label) < len(names):
            return int(example.label)
        reason = f"label {example.label} is out of range; with {len(names)} classnames it is 0 to {len(names) - 1}"
    else:
        close = difflib.get_close_matches(str(example.label), names, n=2)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        reason = f"label {example.label!r} is not among the {len(names)} names of classnames{hint}; add it there"
    bad(example.where, reason)
    return None


def _split(
    items: list[Item], given: list[str], classnames: list[str], options: LoadOptions
) -> tuple[dict[str, list[Item]], str]:
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    for item, split in zip(items, given, strict=True):
        splits.setdefault(split or "train", []).append(item)
    if splits["test"]:
        return splits, "given"
    train = splits["train"]
    if not train:
        raise ValueError("there are validation images only; add train or test images")
    chosen = stratified_rows(
        [classnames[item.label] for item in train], [item.key for item in train], options.test_fraction, options.seed
    )
    splits["test"] = [item for i, item in enumerate(train) if i in chosen]
    splits["train"] = [item for i, item in enumerate(train) if i not in chosen]
    return splits, f"seeded by class: test_fraction={options.test_fraction}, seed={options.seed}"

"""Base and new class names, few-shot samples, and a seeded test split: the same picks as the released CoOp.

Notation: `C` classes.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ogenlib.data.dataset import ImageSet, check_classnames

S = TypeVar("S", ImageSet, Sequence[Any])
VAL_SHOTS = 4  # CoOp's limit on validation images of a class


@dataclass(frozen=True)
class BaseNewSplit:
    """Names that training sees (`base`) and names that it does not (`new`)."""

    base: tuple[str, ...]
    new: tuple[str, ...]


def base_new_split(classnames: Sequence[str]) -> BaseNewSplit:
    """The first ceil(C / 2) names are base, the others new, as CoOp's `subsample_classes` does.

    Raises ValueError for fewer than two names, or for one that comes twice.
    """
    names = check_classnames(classnames)
    if len(names) < 2:
        raise ValueError(f"base-to-new needs at least 2 class names, one a side; got {len(names)}")
    half = (len(names) + 1) // 2
    return BaseNewSplit(names[:half], names[half:])


def few_shot(data: S, shots: int, seed: int) -> S:
    """Draw `shots` images of every class; all of a class that has no more.

    The rule of Dassl's `generate_fewshot_dataset(repeat=False)`, with a generator of its own in place of the
    global one: classes in the order they first appear, `rng.sample` of each. The same seed and the same item
    list give CoOp's picks; CoOp draws over all classes and keeps the base ones afterwards, so call this on
    the whole training set and select classes from the result.

    data: an `ImageSet`, or a list or tuple of examples whose second field is the label, as `(path, label)`.
    Returns the same type, examples class by class.
    Raises ValueError for `shots` below 1, TypeError for shots that are no integer or examples without a label.
    """
    if operator.index(shots) < 1:  # TypeError for anything but a whole number
        raise ValueError(f"shots is {shots}; ask for 1 or more, or use the training set itself for all images")
    return _few(data, shots, random.Random(seed))


def few_shot_train_val(train: S, val: S | None, shots: int, seed: int) -> tuple[S, S | None]:
    """Draw `shots` training and `min(shots, 4)` validation images of every class, as CoOp does for a seed.

    One generator draws both, training first: the training images are those of `few_shot(train, shots, seed)`, and
    the validation images depend on how many training images there were to draw from. None stays None (ImageNet).
    Raises what `few_shot` raises.
    """
    if operator.index(shots) < 1:
        raise ValueError(f"shots is {shots}; ask for 1 or more, or use the sets themselves for all images")
    rng = random.Random(seed)
    picked = _few(train, shots, rng)
    return picked, None if val is None else _few(val, min(shots, VAL_SHOTS), rng)


def _few(data: S, shots: int, rng: random.Random) -> S:
    if isinstance(data, ImageSet):
        return data.subset(_pick([item.label for item in data], shots, rng))
    picked = [data[i] for i in _pick([_label(row, i) for i, row in enumerate(data)], shots, rng)]
    return cast(S, tuple(picked) if isinstance(data, tuple) else picked)


def _pick(labels: Sequence[Hashable], shots: int, rng: random.Random) -> list[int]:
    by_class: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    picked: list[int] = []
    for members in by_class.values():  # a dict keeps the order of first appearance
        picked.extend(rng.sample(members, shots) if len(members) >= shots else members)
    return picked


def _label(row: Any, index: int) -> Hashable:
    if isinstance(row, (str, bytes)) or not isinstance(row, Sequence) or len(row) < 2:
        raise TypeError(f"row {index} is {row!r}; few_shot takes an ImageSet or examples like (path, label)")
    return cast(Hashable, row[1])


def stratified_rows(labels: Sequence[str], keys: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Positions of a test split stratified by class: `fraction` of each class, rounded, at least one a side.

    Each class is drawn by its own generator, seeded with `seed` and its name, over its images in the order of
    their keys: neither the order of the images nor other classes change the draw. `fraction` 0 and 1 put
    everything in train and in test.
    Raises ValueError for a fraction outside 0..1, or a class of one image that cannot be on both sides.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"test_fraction is {fraction}; it must be from 0 (all train) to 1 (all test)")
    by_class: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    chosen: set[int] = set()
    for label, members in by_class.items():
        count = round(len(members) * fraction)
        if 0 < fraction < 1:
            if len(members) < 2:
                raise ValueError(
                    f"class {label!r} has a single image ({keys[members[0]]}), which cannot be in both train "
                    f"and test; add an image, give the split yourself, or pass test_fraction=0 or 1"
                )
            count = min(max(count, 1), len(members) - 1)
        members = sorted(members, key=lambda index: keys[index])
        chosen.update(random.Random(f"{seed}/{label}").sample(members, count))
    return chosen

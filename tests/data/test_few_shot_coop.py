"""The few-shot picks of CoOp for seeds 1 to 3, against a second implementation and against picks written down.

The published split files are not part of the project: what needs them skips where they are absent.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import miniatures as mini
import pytest

from benchmarks.common import clip_features
from ogenlib.data import base_new_split, few_shot, few_shot_train_val, load_dataset
from ogenlib.data.listing import read_json

# (first two training picks, last training pick, first two validation picks, last one) of 2 shots on OxfordPets,
# drawn with Python's global generator as CoOp draws
GOLDEN: dict[int, tuple[list[str], str, list[str], str]] = {
    1: (
        ["Abyssinian_141.jpg", "Abyssinian_153.jpg"],
        "yorkshire_terrier_154.jpg",
        ["Abyssinian_119.jpg", "Abyssinian_161.jpg"],
        "yorkshire_terrier_188.jpg",
    ),
    2: (
        ["Abyssinian_173.jpg", "Abyssinian_193.jpg"],
        "yorkshire_terrier_164.jpg",
        ["Abyssinian_130.jpg", "Abyssinian_10.jpg"],
        "yorkshire_terrier_187.jpg",
    ),
    3: (
        ["Abyssinian_138.jpg", "Abyssinian_12.jpg"],
        "yorkshire_terrier_122.jpg",
        ["Abyssinian_178.jpg", "Abyssinian_148.jpg"],
        "yorkshire_terrier_161.jpg",
    ),
}


def drawn_as_coop(split: dict[str, list[Any]], shots: int, seed: int) -> tuple[list[str], list[str]]:
    """Both draws with the global generator, seeded once; its state is put back."""
    state = random.getstate()
    try:
        random.seed(seed)
        output = []
        for rows, number in ((split["train"], shots), (split["val"], min(shots, 4))):
            tracker = defaultdict(list)
            for path, label, _ in rows:
                tracker[label].append(path)
            output.append(
                [
                    p
                    for paths in tracker.values()
                    for p in (random.sample(paths, number) if len(paths) >= number else paths)
                ]
            )
    finally:
        random.setstate(state)
    return output[0], output[1]


def real_split() -> dict[str, list[Any]]:
    path = Path(os.environ.get(clip_features.VARIABLE, "")) / "splits" / "split_zhou_OxfordPets.json"
    if not os.environ.get(clip_features.VARIABLE) or not path.is_file():
        pytest.skip(f"no published split file; set {clip_features.VARIABLE} to the folder that holds splits/")
    return read_json(path, "a split")


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 3, 16])
def test_picks_of_a_small_dataset(shots: int, seed: int, tmp_path: Path) -> None:
    folders = {f"class {i}": f"class {i}" for i in range(5)}
    home = tmp_path / "dtd"
    split = mini.split_zhou(home / "split_zhou_DescribableTextures.json", home / "images", folders, (7, 3, 1))
    data = load_dataset("dtd", root=tmp_path)
    train, val = few_shot_train_val(data.train, data.val, shots, seed)
    assert val is not None
    assert (train.keys, val.keys) == drawn_as_coop(split, shots, seed)
    assert train.keys == few_shot(data.train, shots, seed).keys
    assert [item.label for item in train][:1] == [4]  # the order of first appearance, not of labels


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_picks_of_the_published_pets_split(shots: int, seed: int) -> None:
    split = real_split()
    rows = {part: [(path, label) for path, label, _ in split[part]] for part in ("train", "val")}
    train, val = few_shot_train_val(rows["train"], rows["val"], shots, seed)
    assert val is not None
    assert ([p for p, _ in train], [p for p, _ in val]) == drawn_as_coop(split, shots, seed)
    assert (len(train), len(val)) == (37 * shots, 37 * min(shots, 4))


@pytest.mark.parametrize("seed", GOLDEN)
def test_golden_picks_of_the_published_pets_split(seed: int) -> None:
    split = real_split()
    train, val = few_shot_train_val([r[:2] for r in split["train"]], [r[:2] for r in split["val"]], 2, seed)
    assert val is not None
    a, b = [p for p, _ in train], [p for p, _ in val]
    assert (a[:2], a[-1], b[:2], b[-1]) == GOLDEN[seed]


def test_halves_of_the_published_pets_split() -> None:
    names = {label: name for _, label, name in real_split()["test"]}
    split = base_new_split([names[i] for i in range(len(names))])
    assert (len(split.base), len(split.new)) == (19, 18)
    assert (split.base[0], split.base[-1], split.new[0], split.new[-1]) == (
        "abyssinian",
        "keeshond",
        "leonberger",
        "yorkshire_terrier",
    )


def test_without_validation_images_none_are_drawn() -> None:
    rows = [(f"{i}.jpg", i % 2) for i in range(8)]
    train, val = few_shot_train_val(rows, None, 2, 1)
    assert val is None and train == few_shot(rows, 2, 1)
    with pytest.raises(ValueError, match="shots is 0; ask for 1 or more"):
        few_shot_train_val(rows, None, 0, 1)

"""Tasks that OGEN is measured on, and others, never reported, that its settings were chosen on.

Chosen on (`selection_tasks`): emoji grouped by search tag, in four of the icon sets; the first half of DTD's and of
the Cars' names divided again, training rows only; ImageNet names with few-shot features.
Reported (`emoji_tasks`, `real_tasks`): `emoji-categories`; all names of DTD and Stanford Cars.

Notation: `N` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.clip_features import as_labels, load_arrays, load_clip_features
from ogenlib.data import BaseNewSplit, FeatureBank, ImageSet, PixelBank, base_new_split, few_shot, load_dataset
from ogenlib.data.dataset import Item, short_hash
from ogenlib.data.emoji import TEMPLATES, Concept, concepts, open_drawing
from ogenlib.hosts import Host
from ogenlib.towers import Backbone, EmbeddingTable, load_backbone
from ogenlib.train.batches import Bank

TAG_SETS = ("noto", "fluent-emoji-flat", "emojione", "openmoji")
FIRST_GROUPS = ("smileys-emotion", "people-body", "animals-nature", "food-drink")
TAGS, MIN_CONCEPTS, MAX_CONCEPTS, MAX_TRAIN = 40, 10, 80, 16
REAL_EPOCHS = 20


@dataclass(frozen=True)
class StudyTask:
    """Images of base names to train on, test images of base and new names.

    Attributes:
        family: tasks of a family are averaged.
        templates: of the zero-shot classifier.
        pixels: gives the same images as pixels, to train on and to test on; None where there are only features.
    """

    name: str
    family: str
    clip: Backbone | EmbeddingTable
    split: BaseNewSplit
    bank: FeatureBank
    test: FeatureBank
    templates: tuple[str, ...]
    epochs: int = 50
    pixels: Callable[[], tuple[PixelBank, PixelBank]] | None = None

    def banks(self, host: Host) -> tuple[Bank, Bank]:
        """What this host trains on and is tested on; ValueError for a host that needs pixels where there are none."""
        if host.uses_cached_features:
            return self.bank, self.test
        if self.pixels is None:
            raise ValueError(f"task {self.name} has features only; {host.info.name} needs pixels")
        return self.pixels()


def emoji_tasks(
    seeds: Sequence[int], name: str = "emoji-categories", *, keep: Path | None = None
) -> dict[int, StudyTask]:
    """An embedded dataset as ``ogen bench`` runs it: a 16-shot bank for each seed, tested on its unseen icon sets.

    keep: folder where the features of what was extracted once are found again.
    """
    clip, data = load_backbone("ogen-tiny"), load_dataset(name)
    split = base_new_split(data.classnames)
    family = "emoji" if name == "emoji-categories" else name.split("/")[0]
    test = extracted(clip, data.test, keep)

    @cache  # one bank of test pixels for all seeds
    def test_pixels() -> PixelBank:
        return PixelBank.load(clip, data.test)

    tasks = {}
    for seed in seeds:
        picked = few_shot(data.train, 16, seed).of_classes(split.base)

        @cache
        def pixels(picked: ImageSet = picked, seed: int = seed) -> tuple[PixelBank, PixelBank]:
            return PixelBank.load(clip, picked, views=8, seed=seed), test_pixels()

        bank = extracted(clip, picked, keep, views=8, seed=seed)
        tasks[seed] = StudyTask(name, family, clip, split, bank, test, tuple(data.templates), pixels=pixels)
    return tasks


def extracted(clip: Backbone, images: ImageSet, keep: Path | None, **settings: Any) -> FeatureBank:
    """Features from `keep` if they are there; saved whole, so that several processes may share the folder."""
    if keep is None:
        return FeatureBank.extract(clip, images, **settings)
    path = keep / f"{short_hash([images.content_hash(), images.hash(), clip.weights_hash, settings])}.safetensors"
    if not path.exists():
        FeatureBank.extract(clip, images, **settings).save(path)
    return FeatureBank.load(path)


def real_tasks(folder: Path | None) -> list[StudyTask]:
    """DTD and Stanford Cars; the first half of the names is base."""
    tasks = []
    for name in ("dtd", "stanford_cars"):
        data = load_clip_features(name, folder)
        split = base_new_split(data.classnames)
        names = data.classnames
        tasks.append(
            _features(name, name, names, data.text, split, (data.train_x, data.train_y), (data.test_x, data.test_y))
        )
    return tasks


def selection_tasks(folder: Path | None) -> list[StudyTask]:
    """Everything settings may be chosen on; without `folder` the emoji ones only."""
    clip = load_backbone("ogen-tiny")
    tasks = [tag_task(clip, TAG_SETS[i % 4], seed=200 + i, apart=False) for i in range(4)]
    tasks += [tag_task(clip, TAG_SETS[i % 4], seed=300 + i, apart=True) for i in range(4)]
    if folder is None:
        return tasks
    for seed in range(2):
        tasks += [_base_half("dtd", folder, seed), _base_half("stanford_cars", folder, seed), _imagenet(folder, seed)]
    return tasks


def tag_task(clip: Backbone, icon_set: str, seed: int, *, apart: bool) -> StudyTask:
    """Classes are search tags that no drawing shares; train and test concepts are disjoint.

    apart: base and new tags come from different groups of the emoji catalogue, as far from each other as the two
        halves of `emoji-categories`; every other seed swaps the sides.
    """
    rng = random.Random(seed)
    drawn = [c for c in concepts() if open_drawing(icon_set, c.id)]
    first = [c for c in drawn if c.group in FIRST_GROUPS]
    second = [c for c in drawn if c.group not in FIRST_GROUPS]
    if apart:
        pools = (first, second) if seed % 2 else (second, first)
        base, new = (_exclusive_tags(pool, TAGS // 2, rng) for pool in pools)
        new = {tag: carriers for tag, carriers in new.items() if tag not in base}
    else:
        both = list(_exclusive_tags(drawn, TAGS, rng).items())
        rng.shuffle(both)
        half = (len(both) + 1) // 2
        base, new = dict(both[:half]), dict(both[half:])
    names = (*base, *new)
    train: list[Item] = []
    test: list[Item] = []
    for label, carriers in enumerate([*base.values(), *new.values()]):
        order = sorted(carriers, key=lambda c: c.id)
        rng.shuffle(order)
        cut = min(MAX_TRAIN, len(order) // 2)
        items = [Item(open_drawing(icon_set, c.id), label, icon_set, f"{icon_set}/{c.id}") for c in order]
        train += items[:cut] if label < len(base) else []
        test += items[cut:]
    images = (ImageSet(tuple(train), tuple(base)), ImageSet(tuple(test), names))
    bank = FeatureBank.extract(clip, images[0], views=8, seed=1)
    seen = FeatureBank.extract(clip, images[1])

    def pixels() -> tuple[PixelBank, PixelBank]:
        return PixelBank.load(clip, images[0], views=8, seed=1), PixelBank.load(clip, images[1])

    family = "tags apart" if apart else "tags"
    split = BaseNewSplit(tuple(base), tuple(new))
    return StudyTask(f"{family} {icon_set} {seed}", family, clip, split, bank, seen, TEMPLATES, pixels=cache(pixels))


def _exclusive_tags(pool: Sequence[Concept], count: int, rng: random.Random) -> dict[str, list[Concept]]:
    """Up to `count` random tags, each with the concepts that carry it and none of the others."""
    counts = Counter(tag for c in pool for tag in sorted(set(c.tags)))
    candidates = [tag for tag, n in counts.items() if MIN_CONCEPTS <= n <= MAX_CONCEPTS]
    rng.shuffle(candidates)

    def divide(tags: Sequence[str]) -> dict[str, list[Concept]]:
        carriers: dict[str, list[Concept]] = {tag: [] for tag in tags}
        for concept in pool:
            carried = [tag for tag in tags if tag in concept.tags]
            if len(carried) == 1:
                carriers[carried[0]].append(concept)
        return carriers

    chosen: list[str] = []
    for tag in candidates:
        if min(len(carriers) for carriers in divide([*chosen, tag]).values()) >= MIN_CONCEPTS:
            chosen.append(tag)
        if len(chosen) == count:
            break
    return divide(chosen)


def _base_half(name: str, folder: Path, seed: int) -> StudyTask:
    """Base names and training images of a reported dataset, both divided again at random."""
    data = load_clip_features(name, folder)
    n_base = len(base_new_split(data.classnames).base)
    rng = random.Random(seed)
    order = list(range(n_base))
    rng.shuffle(order)
    half = (n_base + 1) // 2
    train: list[int] = []
    test: list[int] = []
    for label in range(n_base):
        indices = (data.train_y == label).nonzero()[:, 0].tolist()
        rng.shuffle(indices)
        train += indices[: len(indices) // 2]
        test += indices[len(indices) // 2 :]
    split = BaseNewSplit(*(tuple(data.classnames[i] for i in part) for part in (order[:half], order[half:])))
    sides = [(data.train_x[part], data.train_y[part]) for part in (train, test)]
    return _features(f"{name} base {seed}", f"{name} base", data.classnames, data.text, split, *sides)


def _imagenet(folder: Path, seed: int) -> StudyTask:
    """200 classes that follow each other in ImageNet's order, so that they are alike; 4 shots."""
    images = load_arrays("imas_vitb32_imagenet.npz", folder)
    train, labels = torch.tensor(images["train4_x"]).float(), as_labels(images["train4_y"])
    test = torch.cat([torch.tensor(images[f"train{k}_x"]).float() for k in (1, 2)])
    truth = torch.cat([as_labels(images[f"train{k}_y"]) for k in (1, 2)])
    text = torch.tensor(load_arrays("text_vitb32_imagenet1k.npz", folder)["text_b"]).float()
    rng = random.Random(seed)
    start = rng.randrange(0, 800)
    order = list(range(start, start + 200))
    rng.shuffle(order)
    names = tuple(f"class {i}" for i in range(1000))
    split = BaseNewSplit(tuple(names[i] for i in order[:100]), tuple(names[i] for i in order[100:]))
    return _features(f"imagenet {seed}", "imagenet", names, text, split, (train, labels), (test, truth))


def _features(
    name: str,
    family: str,
    names: Sequence[str],
    text: Tensor,
    split: BaseNewSplit,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> StudyTask:
    table = EmbeddingTable(list(names), text, name=name)
    bank = FeatureBank.from_features(*train, list(names), table).select(split.base)
    seen = FeatureBank.from_features(*test, list(names), table).select((*split.base, *split.new))
    return StudyTask(name, family, table, split, bank, seen, ("{}",), REAL_EPOCHS)


def task_card(task: StudyTask) -> dict[str, Any]:
    """What a task is made of, JSON-able."""
    return {
        "family": task.family,
        "n_base": len(task.split.base),
        "n_new": len(task.split.new),
        "epochs": task.epochs,
        "train_rows": len(task.bank),
        "test_rows": len(task.test),
        "backbone": task.clip.fingerprint(),
        "templates": list(task.templates),
    }

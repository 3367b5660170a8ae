"""The embedded emoji data: twelve icon sets, one drawing of each concept a set, each set a domain.

``emoji-categories``: classes are kinds of things (mammal, fruit, tool, ...); training and test *concepts*
are disjoint, so a test image shows something that was never seen in training in any drawing.
``emoji-concepts/<group>``: classes are single concepts; training and test differ by icon set.
``emoji-captions`` (`load_emoji_captions`, for retrieval): drawings with captions made of names and tags; training and
test concepts are disjoint, and every concept of ``emoji-categories`` is on the same side in both.

The six sets ogen-tiny was pretrained on are `PRETRAINING_SETS`; train and test use the other six unless
asked otherwise. Sources and licences: ``emoji_bundle/ATTRIBUTION.md``.
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from PIL import Image

from ogenlib.data.captions import CaptionDataset, CaptionedImages
from ogenlib.data.dataset import Dataset, ImageSet, Item
from ogenlib.data.decode import decoded
from ogenlib.utils.documents import read_json

PRETRAINING_SETS = ("noto-v1", "emojione-v1", "twemoji", "fluent-emoji", "fxemoji", "streamline-emojis")
UNSEEN_SETS = (
    "noto", "emojione", "fluent-emoji-flat", "openmoji", "emojione-monotone", "fluent-emoji-high-contrast",
)  # fmt: skip
TEMPLATES = ("an icon of a {}.",)
CAPTIONS = "emoji-captions"  # what the drawings with captions are called

# Subgroup -> class name. Subgroups whose name says nothing about the picture (the "other" ones, and
# "emotion": bombs, speech balloons, hundred points) are left out.
CATEGORY_NAMES = {
    "face-smiling": "smiling face", "face-neutral-skeptical": "skeptical face",
    "face-concerned": "worried face", "face-costume": "costume face", "cat-face": "cat face",
    "heart": "heart", "person": "person", "person-gesture": "gesturing person",
    "person-role": "person at work", "person-activity": "walking person", "person-sport": "athlete",
    "animal-mammal": "mammal", "animal-bird": "bird", "animal-marine": "sea animal", "animal-bug": "bug",
    "plant-flower": "flower", "food-fruit": "fruit", "food-vegetable": "vegetable",
    "food-prepared": "meal", "food-asian": "asian food", "food-sweet": "sweet dessert", "drink": "drink",
    "place-geographic": "landscape", "place-building": "building", "transport-ground": "ground vehicle",
    "transport-water": "boat", "transport-air": "aircraft", "time": "clock", "sky-weather": "weather",
    "event": "celebration", "sport": "sport", "game": "game", "clothing": "clothing", "sound": "loudspeaker",
    "music": "music", "computer": "computer", "light-video": "camera and light", "book-paper": "book",
    "money": "money", "mail": "mail", "office": "office supply", "tool": "tool",
    "transport-sign": "public sign", "warning": "warning sign", "arrow": "arrow", "religion": "religion",
    "zodiac": "zodiac sign", "av-symbol": "media button", "keycap": "number key",
    "alphanum": "letter button", "geometric": "geometric shape",
}  # fmt: skip
MIN_MEMBERS = 8  # a class needs enough concepts to be split in two
MAX_TRAIN_CONCEPTS = 16  # the usual largest number of shots


@dataclass(frozen=True)
class Concept:
    """One emoji: code points as id, CLDR name, search tags, and its place in the emoji catalogue."""

    id: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


def bundle_path() -> Path:
    """The folder that holds the icon ZIPs, ``concepts.csv``, ``sets.json`` and ``ATTRIBUTION.md``."""
    return Path(str(files("ogenlib.data"))) / "emoji_bundle"


@lru_cache(maxsize=1)
def concepts() -> tuple[Concept, ...]:
    """All concepts in catalogue order."""
    with (bundle_path() / "concepts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Concept(r["id"], r["name"], tuple(t for t in r["tags"].split("|") if t), r["group"], r["subgroup"])
            for r in csv.DictReader(file)
        )


@lru_cache(maxsize=1)
def icon_sets() -> dict[str, dict[str, Any]]:
    """Name -> title, author, licence, package, version, images, sha256 of each icon set."""
    path = bundle_path() / "sets.json"
    return cast(
        dict[str, dict[str, Any]],
        read_json(path, dict[str, dict[str, Any]], what="the list of icon sets", fix="install ogenlib again"),
    )


@lru_cache(maxsize=len(PRETRAINING_SETS) + len(UNSEEN_SETS))
def _shard(icon_set: str) -> dict[str, bytes]:
    """Concept id -> WebP bytes; about one megabyte, read once."""
    with zipfile.ZipFile(bundle_path() / f"{icon_set}.zip") as archive:
        return {name.removesuffix(".webp"): archive.read(name) for name in archive.namelist()}


def open_drawing(icon_set: str, concept: str) -> Callable[[], Image.Image] | None:
    """A function that opens the set's drawing of a concept; None if the set has none.

    Raises:
        ValueError: unknown icon set.
    """
    _check_sets([icon_set], "icon_set")
    return partial(_open, icon_set, concept) if concept in _shard(icon_set) else None


def _open(icon_set: str, concept: str) -> Image.Image:
    with decoded(_shard(icon_set)[concept], ("WEBP",)) as picture:
        return picture.convert("RGB")


def _item(icon_set: str, concept: str, label: int) -> Item:
    return Item(partial(_open, icon_set, concept), label, icon_set, f"{icon_set}/{concept}")


def _drawn(icon_set: str) -> frozenset[str]:
    return frozenset(_shard(icon_set))


def emoji_datasets() -> list[str]:
    """The names `load_emoji` accepts."""
    groups = list(dict.fromkeys(c.group for c in concepts()))
    return ["emoji-categories", *(f"emoji-concepts/{g}" for g in groups)]


def _check_sets(names: Sequence[str], argument: str) -> tuple[str, ...]:
    unknown = [n for n in names if n not in icon_sets()]
    if unknown or not names:
        raise ValueError(f"{argument}={list(names)} must name icon sets out of {sorted(icon_sets())}")
    return tuple(names)


def load_emoji(
    name: str, *, train_domains: Sequence[str] | None = None, test_domains: Sequence[str] | None = None
) -> Dataset:
    """Load one of `emoji_datasets()`.

    Args:
        train_domains: icon sets to train on; default ``noto`` for the categories and ``emojione``,
            ``fluent-emoji-flat``, ``openmoji`` for the concepts.
        test_domains: icon sets to test on; default the six sets ogen-tiny never saw, for the concepts
            without the training ones.

    Raises:
        ValueError: unknown dataset or icon set, or (concepts) an icon set in both train and test.
    """
    if name not in emoji_datasets():
        raise ValueError(f"dataset {name!r} is not embedded; embedded are {emoji_datasets()}")
    if name == "emoji-categories":
        train = _check_sets(train_domains or ("noto",), "train_domains")
        test = _check_sets(test_domains or UNSEEN_SETS, "test_domains")
        return _categories(train, test)
    train = _check_sets(train_domains or ("emojione", "fluent-emoji-flat", "openmoji"), "train_domains")
    test = _check_sets(test_domains or [s for s in UNSEEN_SETS if s not in train], "test_domains")
    if shared := sorted(set(train) & set(test)):
        raise ValueError(f"{name}: {shared} would be trained and tested on; a concept has one drawing a set")
    return _concepts(name, train, test)


def _info(train: tuple[str, ...], test: tuple[str, ...]) -> dict[str, Any]:
    used = {s: icon_sets()[s]["licence"] for s in dict.fromkeys((*train, *test))}
    return {"train_domains": list(train), "test_domains": list(test), "licences": used, "skipped": []}


def _everywhere() -> list[Concept]:
    """Concepts drawn in every unseen set, so that every domain is tested on the same things."""
    common = frozenset.intersection(*(_drawn(s) for s in UNSEEN_SETS))
    return [c for c in concepts() if c.id in common]


def _sides(ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Training and test concepts of one kind: up to half of them, 16 at most, and the rest."""
    # Ordered by hash: a fixed shuffle that does not move when a concept is added.
    shuffled = sorted(ids, key=lambda i: _order("emoji-categories", i))
    cut = min(MAX_TRAIN_CONCEPTS, len(shuffled) // 2)
    return shuffled[:cut], shuffled[cut:]


def _order(*parts: str) -> bytes:
    return hashlib.sha256(" ".join(parts).encode()).digest()


def _categories(train: tuple[str, ...], test: tuple[str, ...]) -> Dataset:
    members: dict[str, list[str]] = defaultdict(list)
    for c in _everywhere():
        if c.subgroup in CATEGORY_NAMES:
            members[CATEGORY_NAMES[c.subgroup]].append(c.id)
    classnames = tuple(sorted(n for n, ids in members.items() if len(ids) >= MIN_MEMBERS))
    train_items, test_items = [], []
    for label, classname in enumerate(classnames):
        seen, unseen = _sides(members[classname])
        train_items += [_item(s, i, label) for s in train for i in seen if i in _drawn(s)]
        test_items += [_item(s, i, label) for s in test for i in unseen if i in _drawn(s)]
    return Dataset(
        "emoji-categories",
        ImageSet(tuple(train_items), classnames),
        ImageSet(tuple(test_items), classnames),
        templates=TEMPLATES,
        info=_info(train, test),
    )


def _concepts(name: str, train: tuple[str, ...], test: tuple[str, ...]) -> Dataset:
    group = name.split("/")[1]
    chosen = [c for c in _everywhere() if c.group == group]
    classnames = tuple(c.name for c in chosen)

    def images(sets: tuple[str, ...]) -> ImageSet:
        items = [_item(s, c.id, i) for s in sets for i, c in enumerate(chosen) if c.id in _drawn(s)]
        return ImageSet(tuple(items), classnames)

    return Dataset(name, images(train), images(test), templates=TEMPLATES, info=_info(train, test))


def concept_captions(concept: Concept, unsaid: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Two to four captions of a drawing: its name in a sentence, with its kind, with a tag, and three tags alone.

    The last names no thing and may fit several drawings, as captions of photographs do. Which tags are taken is fixed
    by a hash; tags that are words of the name add nothing to it, and numbers say nothing: they are passed over.

    Args:
        unsaid: whether a text may not be said; tags and captions that may not are left out, and perhaps none is left.
    """
    name, kind = concept.name, " ".join(w for w in reversed(concept.subgroup.split("-")) if w != "other")
    words = set(name.split())
    tags = sorted((t for t in concept.tags if t[0].isalpha() and t != name), key=lambda t: _order(concept.id, t))
    if unsaid is not None:
        tags = [t for t in tags if not unsaid(t)]
    further = [t for t in tags if t not in words]
    captions = [TEMPLATES[0].format(name), f"{name}, a {kind}"]
    captions += [f"{name}, {further[0]}"] if further else []
    captions += [", ".join(tags[:3])] if len(tags) >= 3 else []
    return tuple(text for text in captions if unsaid is None or not unsaid(text))


def load_emoji_captions(
    *, train_domains: Sequence[str] | None = None, test_domains: Sequence[str] | None = None
) -> CaptionDataset:
    """Drawings with the captions of `concept_captions`; no test concept is in training, in any drawing.

    Of every kind (subgroup) up to half of the concepts are for training, 16 at most. ogen-tiny knows the *words* of
    all concepts, and drawings of them from other icon sets.

    Args:
        train_domains, test_domains: icon sets; ``noto``, and the six sets that ogen-tiny never saw.

    Raises:
        ValueError: an unknown icon set.
    """
    train = _check_sets(train_domains or ("noto",), "train_domains")
    test = _check_sets(test_domains or UNSEEN_SETS, "test_domains")
    members: dict[str, list[str]] = defaultdict(list)
    for c in _everywhere():
        members[c.subgroup].append(c.id)
    texts = {c.id: concept_captions(c) for c in concepts()}

    def images(sets: Sequence[str], ids: Sequence[str]) -> CaptionedImages:
        drawn = [(s, i) for s in sets for i in ids if i in _drawn(s)]
        return CaptionedImages(tuple(_item(s, i, 0) for s, i in drawn), tuple(texts[i] for _, i in drawn))

    sides = [_sides(ids) for ids in members.values()]
    seen, unseen = ([i for side in sides for i in side[which]] for which in (0, 1))
    return CaptionDataset(CAPTIONS, images(train, seen), images(test, unseen), info=_info(train, test))

"""Captions and a candidate pool for the embedded emoji data, without a word or a drawing of what is tested.

What a captioner would write is taken from the catalogue: an emoji's name and its search tags. A test concept is one
that a dataset's test images show. No caption written here says a test concept's name, not even inside another name
("cat face" where "cat" is tested), and no candidate shows one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ogenlib.anchors.captions import CaptionTable, caption_table
from ogenlib.anchors.pool_shards import PairEncoder, extract_pool
from ogenlib.anchors.retrieve import PER_CLASS, AnchorPairs, K, retrieve
from ogenlib.data.bank import FeatureBank
from ogenlib.data.dataset import Dataset, ImageSet, Item
from ogenlib.data.emoji import PRETRAINING_SETS, Concept, concepts, open_drawing

MAX_TAGS = 4  # captions of an image besides its name


class EmojiCaptions:
    """A `Captioner` that knows emoji by the key of their drawing (``noto/1f98a``).

    Args:
        data: the dataset whose test concepts are never named. A concept that is also captioned may be named:
            `emoji-concepts` tests other drawings of the concepts it trains on.
        max_tags: most tags of an image that become captions.

    An image about which nothing may be said is captioned with its class name in the dataset's first template, which
    training sees anyway.

    Raises:
        ValueError: `max_tags` below 0, or (when it captions) an image that is no emoji of the catalogue.
    """

    def __init__(self, data: Dataset, max_tags: int = MAX_TAGS) -> None:
        if max_tags < 0:
            raise ValueError(f"max_tags={max_tags}: must be 0 or more")
        self.tested, self.template, self.max_tags = _shown(data.test), data.templates[0], max_tags

    def caption(self, images: ImageSet) -> list[str]:
        """The first text of every image."""
        return [texts[0] for texts in self.table(images).values()]

    def table(self, images: ImageSet) -> CaptionTable:
        """Key -> "an icon of a fox.", "fox, wild", ...: what may be said, the name first."""
        avoid = Unsaid(self.tested - _shown(images))
        catalogue = {c.id: c for c in concepts()}
        table: CaptionTable = {}
        for item in images:
            texts = _sentences(catalogue[_concept(item.key)], avoid, self.max_tags)
            table[item.key] = texts or (self.template.format(images.classnames[item.label]),)
        return table


class Unsaid:
    """Whether a text says the name of one of some concepts, as whole words and whatever the case."""

    def __init__(self, ids: Iterable[str]) -> None:
        chosen = set(ids)
        self.names = {_words(c.name) for c in concepts() if c.id in chosen}
        self.lengths = sorted({len(name) for name in self.names})

    def __call__(self, text: str) -> bool:
        """Whether `text` may not be said."""
        words = _words(text)
        return any(words[i : i + n] in self.names for n in self.lengths for i in range(len(words) - n + 1))


def emoji_pool(
    data: Dataset, icon_sets: Sequence[str] = PRETRAINING_SETS, *, without: Iterable[str] = (), max_tags: int = MAX_TAGS
) -> tuple[ImageSet, CaptionTable]:
    """Candidates for `data`: drawings of other concepts in icon sets the model was pretrained on, and their captions.

    Args:
        data: whose test concepts are left out: their drawings, and every concept whose name says one.
        icon_sets: see `ogenlib.data.emoji`.
        without: class names of `data` whose training concepts are left out too (the new names of base-to-new).

    Returns:
        Images (all of one class, keys ``twemoji/1f98a``) and key -> texts.

    Raises:
        ValueError: an unknown icon set, a class name that `data` does not have, or nothing left.
    """
    names = list(without)
    hidden = _shown(data.test) | (_shown(data.train.of_classes(names)) if names else frozenset())
    avoid = Unsaid(hidden)
    items: list[Item] = []
    captions: CaptionTable = {}
    told = {
        c.id: _sentences(c, avoid, max_tags) for c in concepts() if c.id not in hidden and not avoid(c.name)
    }  # fmt: skip
    for icon_set in icon_sets:
        for concept, texts in told.items():
            drawing = open_drawing(icon_set, concept)
            if drawing is None:
                continue
            item = Item(drawing, 0, icon_set, f"{icon_set}/{concept}")
            items.append(item)
            captions[item.key] = texts
    if not items:
        raise ValueError(f"icon_sets={list(icon_sets)}: no drawing is left; pass some of {list(PRETRAINING_SETS)}")
    return ImageSet(items, ("candidate",)), captions


def emoji_anchors(
    clip: PairEncoder,
    data: Dataset,
    train: ImageSet,
    folder: str | os.PathLike[str],
    *,
    icon_sets: Sequence[str] = PRETRAINING_SETS,
    without: Iterable[str] = (),
    k: int = K,
    per_class: int | None = PER_CLASS,
    views: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """``captions`` and ``anchors`` of ARF for training images of `data`: `ARF(clip, names, **emoji_anchors(...))`.

    Args:
        train: the images that will be trained on, `data.train` or some of it.
        folder: where the pool is kept, and found again for the same model, data and `without`.
        without: see `emoji_pool`; the new names of base-to-new.
        k, per_class: of the retrieval.
        views, seed: augmented views of the retrieved images.

    Raises:
        ValueError: what `emoji_pool`, `extract_pool` (a folder of another pool) and `retrieve` refuse.
    """
    candidates, told = emoji_pool(data, icon_sets, without=without)
    pool = extract_pool(clip, candidates, told, folder)
    found = retrieve(pool, FeatureBank.extract(clip, train), k, per_class=per_class)
    pairs = AnchorPairs.load(clip, found, candidates, views, told, seed=seed)
    return {"captions": caption_table(train, EmojiCaptions(data)), "anchors": pairs}


def _sentences(concept: Concept, avoid: Unsaid, max_tags: int) -> tuple[str, ...]:
    """What may be said of a concept, its name first."""
    tags = [tag for tag in concept.tags if not avoid(tag) and tag.lower() not in concept.name.lower()][:max_tags]
    if avoid(concept.name):
        return tuple(f"an icon: {tag}" for tag in tags)
    return (f"an icon of a {concept.name}.", *(f"{concept.name}, {tag}" for tag in tags))


def _concept(key: str) -> str:
    """The concept a drawing's key names."""
    concept = key.rpartition("/")[2]
    if concept not in _ids():
        raise ValueError(f"{key!r} is no key of an embedded emoji (as 'noto/1f98a'); caption other images from a file")
    return concept


@lru_cache(maxsize=1)
def _ids() -> frozenset[str]:
    return frozenset(c.id for c in concepts())


def _shown(images: ImageSet) -> frozenset[str]:
    return frozenset(_concept(item.key) for item in images)


def _words(text: str) -> tuple[str, ...]:
    """Words in lower case."""
    return tuple(re.findall(r"\w+", text.lower()))

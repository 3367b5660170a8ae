"""Captions and a candidate pool for the embedded emoji data, without a word or a drawing of what is tested.

What a captioner would write is taken from the catalogue, by `ogenlib.data.emoji.concept_captions`: an emoji's name,
kind and search tags. A test concept is one that a dataset's test images show. No caption written here says a test
concept's name, not even inside another name ("cat face" where "cat" is tested), and no candidate shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ogenlib.anchors.captioner import CaptionTable
from ogenlib.data.dataset import Dataset, ImageSet, Item
from ogenlib.data.emoji import PRETRAINING_SETS, concept_captions, concepts, open_drawing
from ogenlib.data.emoji import icon_sets as all_icon_sets


class EmojiCaptions:
    """A `Captioner` that knows emoji by the key of their drawing (``noto/1f98a``).

    Args:
        data: the dataset whose test concepts are never named. A concept that is also captioned may be named:
            `emoji-concepts` tests other drawings of the concepts it trains on.
        tested: further images whose concepts are treated so; other images than emoji do not count.

    An image about which nothing may be said is captioned with its class name in the dataset's first template, which
    training sees anyway.

    Raises:
        ValueError: (when it captions) an image that is no emoji of the catalogue.
    """

    def __init__(self, data: Dataset, tested: Iterable[ImageSet] = ()) -> None:
        self.tested, self.template = shown(data.test, *tested), data.templates[0]

    def caption(self, images: ImageSet) -> list[str]:
        """The first text of every image."""
        return [texts[0] for texts in self.table(images).values()]

    def table(self, images: ImageSet) -> CaptionTable:
        """Key -> "an icon of a fox.", "fox, a mammal animal", ...: what may be said, the name first."""
        own = {item.key: _concept(item.key) for item in images}
        avoid = Unsaid(self.tested - set(own.values()))
        catalogue = {c.id: c for c in concepts()}
        table: CaptionTable = {}
        for item in images:
            texts = concept_captions(catalogue[own[item.key]], avoid)
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
    data: Dataset,
    icon_sets: Sequence[str] = PRETRAINING_SETS,
    *,
    without: Iterable[str] = (),
    tested: Iterable[ImageSet] = (),
) -> tuple[ImageSet, CaptionTable]:
    """Candidates for `data`: drawings of other concepts in icon sets the model was pretrained on, and their captions.

    Args:
        data: whose test concepts are left out: their drawings, and every concept whose name says one.
        icon_sets: see `ogenlib.data.emoji`.
        without: class names of `data` whose training concepts are left out too (the new names of base-to-new).
        tested: further images whose concepts are left out (the tests of other datasets); other images than emoji do
            not count.

    Returns:
        Images (all of one class, keys ``twemoji/1f98a``) and key -> texts.

    Raises:
        ValueError: an unknown icon set, a class name that `data` does not have, or nothing left.
    """
    names = list(without)
    hidden = shown(data.test, *tested) | (shown(data.train.of_classes(names)) if names else frozenset())
    avoid = Unsaid(hidden)
    items: list[Item] = []
    captions: CaptionTable = {}
    told = {c.id: concept_captions(c, avoid) for c in concepts() if c.id not in hidden and not avoid(c.name)}
    for icon_set in icon_sets:
        for concept, texts in told.items():
            drawing = open_drawing(icon_set, concept)
            if drawing is None or not texts:
                continue
            item = Item(drawing, 0, icon_set, f"{icon_set}/{concept}")
            items.append(item)
            captions[item.key] = texts
    if not items:
        raise ValueError(f"icon_sets={list(icon_sets)}: no drawing is left; pass some of {list(PRETRAINING_SETS)}")
    return ImageSet(items, ("candidate",)), captions


def is_emoji(images: ImageSet) -> bool:
    """Whether every image is an embedded drawing."""
    sets, ids = all_icon_sets(), _ids()
    parts = (item.key.rpartition("/") for item in images)
    return len(images) > 0 and all(icon_set in sets and concept in ids for icon_set, _, concept in parts)


def shown(*sets: ImageSet) -> frozenset[str]:
    """Ids of the concepts that images show; other images than emoji have none."""
    return frozenset(item.key.rpartition("/")[2] for images in sets for item in images) & _ids()


def _concept(key: str) -> str:
    """The concept a drawing's key names."""
    concept = key.rpartition("/")[2]
    if concept not in _ids():
        raise ValueError(f"{key!r} is no key of an embedded emoji (as 'noto/1f98a'); caption other images from a file")
    return concept


@lru_cache(maxsize=1)
def _ids() -> frozenset[str]:
    return frozenset(c.id for c in concepts())


def _words(text: str) -> tuple[str, ...]:
    """Words in lower case."""
    return tuple(re.findall(r"\w+", text.lower()))

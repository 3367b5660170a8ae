"""Where captions and retrieved pairs come from: the catalogue of the embedded data, or files about one's own images.

    source = anchor_source(data, captions="captions.csv", pool="candidates")  # the embedded data need neither
    host = ARF(clip, names, data.templates, **source.options(clip, train, "runs/pool"))

Notation: `N` images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ogenlib.anchors.captioner import (
    SUFFIXES,
    Captioner,
    CaptionTable,
    FileCaptions,
    caption_table,
    describe_captions,
    read_captions,
)
from ogenlib.anchors.emoji_candidates import EmojiCaptions, emoji_pool, is_emoji
from ogenlib.anchors.pool_shards import PairEncoder, extract_pool
from ogenlib.anchors.retrieve import PER_CLASS, AnchorPairs, K, retrieve
from ogenlib.data.bank import FeatureBank
from ogenlib.data.captions import read_karpathy
from ogenlib.data.dataset import Dataset, ImageSet, Item, short_hash
from ogenlib.data.emoji import PRETRAINING_SETS
from ogenlib.utils.documents import DamagedFile, read_json

FILES = tuple(f"captions{suffix}" for suffix in SUFFIXES)  # of a folder of candidates


@dataclass(frozen=True, eq=False)
class AnchorSource:
    """What captions and retrieved pairs of training images are made from.

    captioner: says what is in training images; None for no captions.
    candidates, told: images to retrieve from, and key -> texts of each; None for no retrieved pairs.
    texts: class name -> its texts, of methods that learn from those; empty where there are none.
    card: where all of it came from, JSON-able; for reports, and to tell two sources apart.
    """

    captioner: Captioner | None = None
    candidates: ImageSet | None = None
    told: CaptionTable = field(default_factory=dict)
    texts: CaptionTable = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    def options(
        self,
        clip: PairEncoder,
        train: ImageSet,
        folder: str | os.PathLike[str],
        *,
        bank: FeatureBank | None = None,
        k: int = K,
        per_class: int | None = PER_CLASS,
        views: int = 1,
        seed: int = 0,
        **extraction: Any,
    ) -> dict[str, Any]:
        """``captions`` and ``anchors`` for training images, as `ARF` takes them; without what there is no source of.

        Args:
            train: the images that will be trained on.
            folder: where the features of the candidates are kept, and found again for the same model and candidates.
            bank: features of `train` if they are at hand.
            k, per_class: of the retrieval.
            views, seed: augmented views of the retrieved images.
            extraction: those of `extract_pool` (rank, count, barrier, skip_bad, progress, ...).

        Raises:
            ValueError: an image without a caption, and what `extract_pool` (a folder of another pool) and `retrieve`
                refuse.
        """
        inputs: dict[str, Any] = {}
        if self.captioner is not None:
            inputs["captions"] = caption_table(train, self.captioner)
        if self.candidates is not None:
            pool = extract_pool(clip, self.candidates, self.told, folder, texts=False, **extraction)
            anchors = retrieve(pool, FeatureBank.extract(clip, train) if bank is None else bank, k, per_class=per_class)
            inputs["anchors"] = AnchorPairs.load(clip, anchors, self.candidates, views, self.told, seed=seed)
        return inputs


def anchor_source(
    data: Dataset,
    captions: str | os.PathLike[str] | None = None,
    pool: str | os.PathLike[str] | None = None,
    *,
    tested: Iterable[ImageSet] = (),
    without: Iterable[str] = (),
    has_captions: bool = False,
) -> AnchorSource:
    """Captions and candidates for training on `data`.

    The embedded drawings bring both: `EmojiCaptions`, `emoji_pool`. Files take their place.

    Args:
        captions: a file as `FileCaptions` reads it. Its keys are those of training images, or names of classes, whose
            texts are `AnchorSource.texts`; or some of each.
        pool: candidates as `read_candidates` reads them.
        tested, without: of the embedded data, see `emoji_pool`.
        has_captions: training images have captions anyway, as in retrieval; none are made of the catalogue.

    Raises:
        FileNotFoundError, ValueError: what the readers refuse, or a file of captions that fits nothing in `data`.
    """
    embedded, others = is_emoji(data.train), tuple(tested)
    captioner: Captioner | None = None
    candidates: ImageSet | None = None
    told: CaptionTable = {}
    texts: CaptionTable = {}
    card: dict[str, Any] = {"captions": None, "candidates": None}
    if captions is not None:
        file = FileCaptions(captions)
        captioner, texts = _fitting(file, data, has_captions)
        card["captions"] = {"from": file.path.name, **describe_captions(file.texts)}
    elif embedded and not has_captions:
        captioner = EmojiCaptions(data, others)
        card["captions"] = {
            "from": "emoji catalogue, without names of tested concepts",
            **describe_captions(captioner.table(data.train)),
        }
    if pool is not None:
        candidates, told = read_candidates(pool)
        card["candidates"] = {"from": Path(pool).name}
    elif embedded:
        candidates, told = emoji_pool(data, without=without, tested=others)
        card["candidates"] = {"from": f"{', '.join(PRETRAINING_SETS)}, without tested concepts"}
    if candidates is not None:
        card["candidates"] |= {**describe_captions(told), "images_hash": candidates.hash()}
    return AnchorSource(captioner, candidates, told, texts, card)


def emoji_anchors(
    clip: PairEncoder,
    data: Dataset,
    train: ImageSet,
    folder: str | os.PathLike[str],
    *,
    icon_sets: Sequence[str] = PRETRAINING_SETS,
    without: Iterable[str] = (),
    tested: Iterable[ImageSet] = (),
    **options: Any,
) -> dict[str, Any]:
    """``captions`` and ``anchors`` of ARF for embedded training images: `ARF(clip, names, **emoji_anchors(...))`.

    Args:
        train: the images that will be trained on, `data.train` or some of it.
        folder: where the features of the candidates are kept.
        icon_sets, without, tested: see `emoji_pool`; the new names of base-to-new, and what else is tested.
        options: those of `AnchorSource.options` (bank, k, per_class, views, seed).

    Raises:
        ValueError: what `emoji_pool` and `AnchorSource.options` refuse.
    """
    others = tuple(tested)
    candidates, told = emoji_pool(data, icon_sets, without=without, tested=others)
    return AnchorSource(EmojiCaptions(data, others), candidates, told).options(clip, train, folder, **options)


def read_candidates(path: str | os.PathLike[str]) -> tuple[ImageSet, CaptionTable]:
    """Images with captions to retrieve from: one class of images, and key -> texts.

    Args:
        path: a file of captions (JSON or CSV, see `FileCaptions`) whose keys are image files, seen from the folder the
            file is in; a folder that holds it as ``captions.json`` or ``captions.csv``; or a Karpathy split's JSON, of
            which the training images are taken.

    Raises:
        FileNotFoundError: no such file, or an image it names is not there.
        ValueError: a file of another form.
    """
    file = _candidates_file(Path(path))
    if _is_karpathy(file):
        split = read_karpathy(file).train
        items, told = list(split.items), dict(split.texts)
    else:
        told = read_captions(file)
        items = [Item(file.parent / key, 0, key=key) for key in told]
    missing = [item for item in items if not Path(item.image).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0].image}: no such image ({len(missing)} of {len(items)} that {file} names are missing); its "
            f"keys must be image files seen from {file.parent}"
        )
    return ImageSet((Item(item.image, 0, item.domain, item.key) for item in items), ("candidate",)), told


def source_hash(source: AnchorSource) -> str:
    """16 hex digits over what a source is made of."""
    return short_hash(source.card)


def _fitting(file: FileCaptions, data: Dataset, unnamed: bool) -> tuple[Captioner | None, CaptionTable]:
    """Whether a file has captions of training images, and its texts of class names; unnamed: there are none."""
    texts = {} if unnamed else {name: file.texts[name] for name in data.classnames if name in file.texts}
    images = any(key in file.texts for key in data.train.keys)
    if not images and not texts:
        raise ValueError(
            f"{file.path}: its keys ({list(file.texts)[:2]}, ...) are neither images of {data.name} "
            f"({data.train.keys[:2]}, ...) nor its class names ({list(data.classnames[:2])}, ...)"
        )
    return (file if images else None), texts


def _candidates_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [path / name for name in FILES if (path / name).is_file()]
    if not files:
        raise FileNotFoundError(
            f"{path}: holds no {' or '.join(FILES)}; give a folder of images with such a file, whose keys are the "
            "images' names in that folder"
        )
    return files[0]


def _is_karpathy(file: Path) -> bool:
    if file.suffix.lower() != ".json":
        return False
    try:
        content = read_json(file, what="captions", fix="")
    except (FileNotFoundError, DamagedFile):
        return False  # the reader of captions says what is wrong
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict)

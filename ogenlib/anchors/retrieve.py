"""Anchors: the pairs of a pool that are most like the training images, class by class.

Repeats are handled so, in this order:
1. A candidate whose key is among `exclude`, or whose cosine to a training image reaches `too_near` (it is that very
   picture), is left out.
2. A candidate that several images find is kept once, at its best cosine, and belongs to the class of the image that
   found it there (of equal ones, the first image's).
3. Within a class, best first, a candidate whose cosine to one already kept reaches `same` (the same picture again) is
   left out.
4. Of what is left, a class keeps its `per_class` best.

A class may end with fewer than others, or none: nothing is repeated to fill it.

Notation: `N` training images, `A` anchors, `C` classes, `D` embedding, `k` neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.anchors.captioner import describe_captions
from ogenlib.anchors.pool import CandidatePool
from ogenlib.data.bank import FeatureBank
from ogenlib.data.dataset import ImageSet, Item, short_hash
from ogenlib.data.extract import Encoder
from ogenlib.data.pixels import PixelBank
from ogenlib.utils.documents import DamagedFile, read_document, write_document

FORMAT = "ogenlib.anchors/1"
K, PER_CLASS = 16, 64  # this library's: the paper's summary gives neither
SAME = 0.999  # rounding to half precision moves a cosine by less


class Search(Protocol):
    """A pool, or an index of it."""

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Cosines `(Q, k)` and indices `(Q, k)`, best first; an index of -1 is none."""
        ...


class _Saved(TypedDict):
    format: str
    rows: list[int]
    labels: list[int]
    cosines: list[float]
    keys: list[str]
    captions: list[str]
    classnames: list[str]
    settings: dict[str, Any]
    pool: dict[str, Any]


@dataclass(frozen=True)
class Anchors:
    """A retrieved pairs, class by class and best first.

    rows: in the pool. labels: of the classes that found them, into `classnames`. cosines: to the image that did.
    settings: of the retrieval. pool: the pool's fingerprint.
    """

    rows: tuple[int, ...]
    labels: tuple[int, ...]
    cosines: tuple[float, ...]
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    classnames: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(part) for part in (self.rows, self.labels, self.cosines, self.keys, self.captions)}
        if len(sizes) > 1:
            raise ValueError(f"rows, labels, cosines, keys and captions are of different lengths: {sorted(sizes)}")
        if any(not 0 <= label < len(self.classnames) for label in self.labels):
            raise ValueError(f"labels go from 0 to {len(self.classnames) - 1}, got {sorted(set(self.labels))[:8]} ...")
        if any(row < 0 for row in self.rows):
            raise ValueError(f"rows are numbers from 0, got {min(self.rows)}")

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Anchors of each class."""
        return {name: self.labels.count(label) for label, name in enumerate(self.classnames)}

    def images(self, candidates: ImageSet) -> ImageSet:
        """The anchors' images, labelled with the classes that found them; ValueError if some are not there."""
        by_key = {item.key: item for item in candidates}
        missing = [key for key in self.keys if key not in by_key]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self)} anchors are not among these images, the first {missing[:3]}; "
                "pass the images that the pool was made from"
            )
        items = (
            Item(by_key[key].image, label, by_key[key].domain, key)
            for key, label in zip(self.keys, self.labels, strict=True)
        )
        return ImageSet(items, self.classnames)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, whole or not at all."""
        write_document(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Anchors:
        """What `save` wrote; FileNotFoundError, or ValueError for another file."""
        what, fix = f"a file of anchors ({FORMAT})", "make one with retrieve(pool, bank).save(path)"
        saved = dict(read_document(path, _Saved, what=what, fix=fix))
        if saved.pop("format") != FORMAT:
            raise DamagedFile(f"{path} is not {what}; {fix}")
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in saved.items()}
        try:
            return cls(**values)
        except ValueError as error:
            raise DamagedFile(f"{path} cannot be read as {what}: {error}; {fix}") from error


@dataclass(frozen=True, eq=False)
class AnchorPairs:
    """What training draws anchors from.

    pixels: of the anchors' images. captions: key of an image -> its texts.
    """

    pixels: PixelBank
    captions: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        missing = [key for key in self.pixels.keys if not self.captions.get(key)]
        if missing:
            raise ValueError(f"{len(missing)} of {len(self.pixels)} anchors have no caption, the first {missing[:3]}")

    def describe(self) -> dict[str, Any]:
        """How many pairs, in how many views, and hashes of pixels and texts: what a saved run says of them."""
        made_from = short_hash([self.pixels.fingerprint, self.pixels.keys])
        told = describe_captions({key: self.captions[key] for key in self.pixels.keys})
        return {"pairs": len(self.pixels), "views": self.pixels.views, "pixels": made_from, "captions": told["hash"]}

    @classmethod
    def load(
        cls,
        clip: Encoder,
        anchors: Anchors,
        candidates: ImageSet,
        views: int = 1,
        captions: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> AnchorPairs:
        """The pixels and texts of retrieved pairs.

        candidates: the images the pool was made from.
        captions: key -> texts, where there are more than the pool's one.
        options: those of `PixelBank.load` (augment, seed, cache, workers, ...).
        """
        own = {key: (text,) for key, text in zip(anchors.keys, anchors.captions, strict=True)}
        told = own if captions is None else {key: captions[key] for key in anchors.keys}
        return cls(PixelBank.load(clip, anchors.images(candidates), views, **options), told)


@torch.no_grad()
def retrieve(
    pool: CandidatePool,
    bank: FeatureBank,
    k: int = K,
    *,
    per_class: int | None = PER_CLASS,
    same: float | None = SAME,
    too_near: float | None = None,
    exclude: Iterable[str] = (),
    index: Search | None = None,
) -> Anchors:
    """The anchors of a bank's images; see the module for how repeats are handled.

    Args:
        bank: features of the training images by the model that made the pool; of several views, their mean asks. The
            pool is searched on their device, and read once.
        k: candidates that each image finds.
        per_class: most anchors of a class; None for all.
        same, too_near: cosines from which a candidate repeats another one, or a training image; None for never.
        index: searches in place of the pool (`FaissIndex`); its cosines may be approximate.

    Raises:
        ValueError: a number out of range, a pool of another width or model, or nothing left.
    """
    _check(pool, bank, k, per_class, same, too_near)
    queries = F.normalize(bank.features.float().mean(1), dim=-1)
    cosines, indices = (part.cpu() for part in (index or pool).search(queries, k))
    owners = bank.labels.cpu()[:, None].expand_as(indices).reshape(-1)
    cosines, indices = cosines.reshape(-1), indices.reshape(-1)

    near = torch.zeros_like(indices, dtype=torch.bool) if too_near is None else cosines >= too_near
    refused = {int(i) for i in indices[near]}
    banned = set(exclude)
    candidates = indices[indices >= 0].unique()
    if banned:
        named = zip(candidates.tolist(), pool.keys(candidates), strict=True)
        refused |= {i for i, key in named if key in banned}
    usable = (indices >= 0) & ~torch.isin(indices, torch.tensor(sorted(refused), dtype=torch.long))
    cosines, indices, owners = cosines[usable], indices[usable], owners[usable]

    order = cosines.argsort(descending=True, stable=True)
    cosines, indices, owners = cosines[order], indices[order], owners[order]
    first = _first_of_each(indices)
    cosines, indices, owners = cosines[first], indices[first], owners[first]
    kept: list[int] = []
    for label in range(len(bank.classnames)):
        kept += _of_class(pool, (owners == label).nonzero().flatten(), indices, same, per_class)
    if not kept:
        raise ValueError(f"no candidate is left for any of {len(bank.classnames)} classes; raise k or too_near")
    chosen = indices[kept]
    settings = {"k": k, "per_class": per_class, "same": same, "too_near": too_near, "excluded": len(banned)}
    return Anchors(
        rows=tuple(chosen.tolist()),
        labels=tuple(owners[kept].tolist()),
        cosines=tuple(cosines[kept].tolist()),
        keys=tuple(pool.keys(chosen)),
        captions=tuple(pool.captions(chosen)),
        classnames=bank.classnames,
        settings=settings,
        pool=pool.fingerprint,
    )


def _first_of_each(indices: Tensor) -> Tensor:
    """Where each index stands for the first time, in order."""
    in_order, order = indices.sort(stable=True)
    new = torch.ones_like(in_order, dtype=torch.bool)
    new[1:] = in_order[1:] != in_order[:-1]
    return order[new].sort().values


def _of_class(
    pool: CandidatePool, places: Tensor, indices: Tensor, same: float | None, per_class: int | None
) -> list[int]:
    """The places, best first, that one class keeps."""
    most = len(places) if per_class is None else per_class
    if same is None or not len(places):
        return places[:most].tolist()
    kept: list[int] = []
    features = F.normalize(pool.features(indices[places]), dim=-1)
    taken = torch.empty(min(most, len(places)), pool.embed_dim)
    for place, feature in zip(places.tolist(), features, strict=True):
        if len(kept) == most:
            break
        if kept and float((taken[: len(kept)] @ feature).max()) >= same:
            continue
        taken[len(kept)] = feature
        kept.append(place)
    return kept


def _check(
    pool: CandidatePool, bank: FeatureBank, k: int, per_class: int | None, same: float | None, too_near: float | None
) -> None:
    if k < 1 or (per_class is not None and per_class < 1):
        raise ValueError(f"k={k}, per_class={per_class}: must be 1 or more (per_class=None keeps all)")
    for name, value in (("same", same), ("too_near", too_near)):
        if value is not None and not -1 < value <= 1.01:
            raise ValueError(f"{name}={value}: must be a cosine, as 0.999, or None for no such test")
    if bank.features.shape[-1] != pool.embed_dim:
        raise ValueError(
            f"the bank has {bank.features.shape[-1]} dimensions, the pool {pool.embed_dim}; "
            "make both with the same model"
        )
    hashes = [part.fingerprint.get("backbone", {}).get("weights_hash") for part in (pool, bank)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise ValueError(f"the pool is of weights {hashes[0]}, the bank of {hashes[1]}; make both with one model")

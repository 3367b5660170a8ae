"""Image-text retrieval both ways: features in, recall@k out.

What is counted, and how ties and repeated captions are:

- A query is found at `k` if any item that matches it is among the `k` items nearest to it: with five captions an image,
  any of the five counts for the image, and each of the five is a query of its own for the image.
- Ties are broken at random, in expectation and not by a draw: of items at the same similarity, every order is as
  likely. So a model that gives all items one feature scores at chance, and no order of a file changes a number.
- Identical captions (but for case and spaces) are one text that matches every image it was written for
  (`identical="shared"`): a model cannot tell them apart, and none of their images is a wrong answer. Common evaluation
  code keeps them apart and accepts one's own image only; ``identical="separate"`` does that.

Notation: `Q` queries, `G` items that are searched, `P` matching pairs, `N` images, `T` texts, `D` embedding.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KS = (1, 5, 10)  # of the tables of COCO and Flickr30k
IDENTICAL = ("shared", "separate")
ENTRIES = 1 << 24  # similarities held at once, where no chunk is given: 64 MiB
DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Recalls:
    """Recall in percent, k -> value, from images to texts and from texts to images."""

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]

    @property
    def mean(self) -> float:
        """Of all k in both directions."""
        values = [*self.image_to_text.values(), *self.text_to_image.values()]
        return sum(values) / len(values)

    def as_row(self) -> dict[str, float]:
        """``image_to_text_r1``, ..., ``text_to_image_r10``, ``mean_recall``: as results documents name them."""
        named = {f"{way}_r{k}": value for way in DIRECTIONS for k, value in getattr(self, way).items()}
        return {**named, "mean_recall": self.mean}


def short_name(metric: str) -> str:
    """How tables head a metric of `Recalls.as_row`: ``image→text @1``, ``mean``."""
    way, _, k = metric.partition("_r")
    return f"{way.replace('_to_', '→')} @{k}" if way in DIRECTIONS else metric.removesuffix("_recall")


def pair_up(captions: Sequence[Sequence[str]], *, identical: str = "shared") -> tuple[tuple[str, ...], Tensor]:
    """The texts of a retrieval test, and which image each belongs to.

    Args:
        captions: the texts of every image; several each, not always as many.
        identical: ``shared``: equal texts (case and runs of spaces ignored) are one, spelled as first seen; a
            text twice at one image counts once. ``separate``: every caption is a text of its own.

    Returns:
        Texts `T`, in the order of first appearance, and pairs `(P, 2)` int64 of (image, text).

    Raises:
        ValueError: an unknown `identical`, an image without captions, or a caption without words.
    """
    if identical not in IDENTICAL:
        raise ValueError(f"identical={identical!r}: must be one of {', '.join(IDENTICAL)}")
    texts: list[str] = []
    number: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for image, written in enumerate(captions):
        if isinstance(written, str):
            raise ValueError(f"the captions of image {image} are one string, {written!r}; pass a list of captions")
        if not written:
            raise ValueError(f"image {image} has no caption; leave it out, or give it one")
        for text in written:
            plain = " ".join(text.split()).casefold()
            if not plain:
                raise ValueError(f"image {image} has the caption {text!r}, which has no words; leave it out")
            if identical == "separate" or plain not in number:
                number[plain] = len(texts)
                texts.append(text)
            pairs[image, number[plain]] = None
    return tuple(texts), torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2)


def retrieval(
    images: Tensor, texts: Tensor, pairs: Tensor, ks: Sequence[int] = KS, *, chunk: int | None = None
) -> Recalls:
    """Recalls of features `(N, D)` and `(T, D)` whose matches are the pairs `(P, 2)` of (image, text).

    Arguments and errors are those of `recall_at`; give unit vectors for cosines.
    """
    there = recall_at(images, texts, pairs, ks, chunk=chunk)
    back = recall_at(texts, images, pairs.flip(1), ks, chunk=chunk)
    return Recalls(there, back)


def recall_at(
    queries: Tensor, items: Tensor, pairs: Tensor, ks: Sequence[int] = KS, *, chunk: int | None = None
) -> dict[int, float]:
    """k -> percent of the queries that find a match among their k nearest items.

    Args:
        queries, items: `(Q, D)` and `(G, D)`; similarity is the dot product in fp32 (fp64 stays fp64).
        pairs: `(P, 2)` int64 of (query, item), in any order; a pair given twice counts once.
        chunk: queries at a time; None for as many as make 16 million similarities. It changes no number but by the
            rounding of the products.

    Raises:
        ValueError: features of other shapes or not finite, no queries, a query without a match, a pair out of range,
            or a `k` or `chunk` below 1.
    """
    depths = [operator.index(k) for k in ks]
    chances = found_at(queries, items, pairs, depths, chunk=chunk)
    return {k: 100 * chances[:, column].mean().item() for column, k in enumerate(depths)}


@torch.no_grad()
def found_at(
    queries: Tensor, items: Tensor, pairs: Tensor, ks: Sequence[int] = KS, *, chunk: int | None = None
) -> Tensor:
    """`(Q, len(ks))` fp64: the chance that a query finds a match among its k nearest items, 0 or 1 without ties.

    Arguments and errors are those of `recall_at`.
    """
    _check(queries, items, pairs, ks, chunk)
    dtype = torch.promote_types(torch.promote_types(queries.dtype, items.dtype), torch.float32)
    queries, items = queries.to(dtype), items.to(queries.device, dtype)
    order = pairs[pairs[:, 0].argsort()].to(queries.device)
    starts = torch.searchsorted(order[:, 0].contiguous(), torch.arange(len(queries) + 1, device=queries.device))
    step = chunk or max(1, ENTRIES // len(items))
    chances = []
    for begin in range(0, len(queries), step):
        part = queries[begin : begin + step]
        mine = order[starts[begin] : starts[begin + len(part)]]
        matches = torch.zeros(len(part), len(items), dtype=torch.bool, device=part.device)
        matches[mine[:, 0] - begin, mine[:, 1]] = True
        chances.append(_chances(part @ items.T, matches, ks))
    return torch.cat(chances).cpu()


def _chances(similarity: Tensor, matches: Tensor, ks: Sequence[int]) -> Tensor:
    """Of similarities and matches `(Q, G)`.

    Only the best match matters. With `above` items before it, and `bad` items that do not match beside `good` that do
    at its similarity, the first `left = k - above` of these in random order hold no match with the chance
    ``prod_j (bad - j) / (bad + good - j)``, j below `left`.
    """
    best = similarity.masked_fill(~matches, -torch.inf).amax(1, keepdim=True)
    above = (similarity > best).sum(1)
    tied = similarity == best
    good = (tied & matches).sum(1).double()
    bad = (tied & ~matches).sum(1).double()
    columns = []
    for k in ks:
        miss = torch.ones_like(good)
        left = k - above
        for j in range(min(k, int(bad.max()) + 1)):  # beyond, the product is 0
            factor = (bad - j).clamp_min(0) / (bad + good - j).clamp_min(1)
            miss = torch.where(left > j, miss * factor, miss)
        columns.append(1 - miss)
    return torch.stack(columns, 1)


def _check(queries: Tensor, items: Tensor, pairs: Tensor, ks: Sequence[int], chunk: int | None) -> None:
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"features are {tuple(queries.shape)} and {tuple(items.shape)}; pass (Q, D) and (G, D) of one model"
        )
    if not len(queries):
        raise ValueError("there are no queries; pass at least one image with one caption")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={list(ks)}: name numbers of 1 or more, as (1, 5, 10)")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: must be 1 query or more, or None")
    for name, features in (("queries", queries), ("items", items)):
        if not features.isfinite().all():
            raise ValueError(f"{name} hold numbers that are not finite; look at the images and texts they are of")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise ValueError(f"pairs are {tuple(pairs.shape)} {pairs.dtype}; pass (P, 2) whole numbers (query, item)")
    limits = torch.tensor([len(queries), len(items)], device=pairs.device)
    if len(pairs) and not ((pairs >= 0) & (pairs < limits)).all():
        raise ValueError(f"pairs name rows outside of {len(queries)} queries and {len(items)} items")
    without = torch.bincount(pairs[:, 0], minlength=len(queries)) == 0
    if without.any():
        bad = without.nonzero().flatten()[:5].tolist()
        raise ValueError(
            f"{int(without.sum())} queries match no item, the first rows {bad}; every image needs a caption and every "
            "text an image: leave out the others"
        )

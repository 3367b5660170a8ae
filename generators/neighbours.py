"""The known classes nearest to a class.

The paper takes nearest neighbours of the class names; the released code ranks known classes once by their mean
image features and new ones by text. Both are here: pass `by`, and call again or keep the result.

Notation: `U` query classes, `C` known classes, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ogenlib.generators.checks import check_at_least, check_choice, check_rows, unit

SPACES = ("text", "image", "both")
Means = Tensor | tuple[Tensor, Tensor]


def class_neighbours(
    query: Tensor,
    known: Tensor,
    k: int,
    *,
    image_means: Means | None = None,
    by: str = "text",
    exclude_self: bool = False,
) -> tuple[Tensor, Tensor]:
    """The `k` known classes nearest to each query class, nearest first.

    Args:
        query: class embeddings `(U, D)`, of any length; only directions count.
        known: class embeddings `(C, D)`.
        image_means: mean image feature of each class, for `by` image or both: `(C, D)` when the queries are the
            known classes themselves (`exclude_self`), else a pair `((U, D), (C, D))`.
        by: ``text`` cosine of embeddings, ``image`` cosine of image means, ``both`` the mean of the two.
        exclude_self: query `i` is known class `i` and is not its own neighbour.

    Returns:
        Indices `(U, K)` into `known` and their similarities `(U, K)`. Of equally similar classes the one with
        the lower index comes first.

    Raises:
        ValueError: unknown `by`, bad shapes or values, too few known classes, or image means that are needed and
            missing (a class without images has none).
    """
    check_choice("by", by, SPACES)
    check_rows("known", known)
    check_rows("query", query, known.shape[1])
    check_at_least("k", k, 1)
    if exclude_self and len(query) != len(known):
        raise ValueError(
            f"exclude_self=True with {len(query)} queries and {len(known)} known classes: the queries must be the "
            "known classes in the same order; pass exclude_self=False for other classes"
        )
    candidates = len(known) - int(exclude_self)
    if k > candidates:
        raise ValueError(
            f"k={k} neighbours asked for and {candidates} known classes to choose from; pass k={candidates} or less"
            if candidates
            else "a single known class has no neighbour but itself; add classes"
        )
    similarity = class_similarity(query, known, image_means=image_means, by=by, same=exclude_self)
    if exclude_self:
        similarity = similarity.masked_fill(torch.eye(len(known), dtype=torch.bool, device=known.device), -torch.inf)
    return nearest(similarity, k)


def class_similarity(query: Tensor, known: Tensor, *, image_means: Means | None, by: str, same: bool) -> Tensor:
    """Cosines `(U, C)` in the space `by`; `same`: the queries are the known classes."""
    text = unit(query) @ unit(known).T
    if by == "text":
        return text
    if image_means is None or (isinstance(image_means, Tensor) and not same):
        raise ValueError(
            f"by={by!r} needs the mean image feature of every query class, and unknown classes have no images; "
            "use by='text', or pass image_means=(query_means, known_means)"
        )
    pair = (image_means, image_means) if isinstance(image_means, Tensor) else image_means
    for name, means, classes in (("query", pair[0], query), ("known", pair[1], known)):
        check_rows(f"image_means of the {name} classes", means)
        if len(means) != len(classes):
            raise ValueError(f"{len(means)} image means for {len(classes)} {name} classes; pass one row for each")
    image = unit(pair[0]) @ unit(pair[1]).T
    return image if by == "image" else (text + image) / 2


def nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and values `(U, K)` of the largest similarities `(U, C)`; ties go to the lower column."""
    # topk promises no order among equals; a stable sort does.
    values, order = similarity.sort(dim=-1, descending=True, stable=True)
    return order[:, :k], values[:, :k]

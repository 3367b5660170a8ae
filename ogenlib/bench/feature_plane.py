"""Real and synthesized features of some classes as points in one plane.

The axes come from the real features alone: the two directions in which their class means differ most. Fitted on all,
a plane could hide that synthesized features lie elsewhere, because it would turn towards them. Plain PCA shows
what images of one class differ in, which is most of their variance and says little about where classes lie.

Notation: `N` real features, `M` synthesized features, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CLASSES = 6
MAX_POINTS = 60
DIGITS = 4
REAL, SYNTHESIZED, TEXT = "real", "synthesized", "text"


def project(
    real: Tensor,
    real_labels: Tensor,
    synthesized: Tensor,
    synthesized_labels: Tensor,
    classnames: Sequence[str],
    text: Tensor | None = None,
    *,
    max_classes: int = MAX_CLASSES,
    max_points: int = MAX_POINTS,
) -> dict[str, Any]:
    """`{"classes": [names], "points": [{"class": i, "kind": "real"|"synthesized"|"text", "xy": [x, y]}, ...]}`.

    Deterministic and JSON-able. Features are brought to unit length. Of many classes, those are shown whose real means
    lie farthest apart (farthest-first, from the mean of all) among the half with the most real features; the
    synthesized ones have no say. Of many features of a class every n-th is shown; the axes are computed from all real
    ones of the shown classes. With two classes, the second axis is the one in which their real features vary most
    besides.

    Args:
        real, synthesized: `(N, D)` and `(M, D)`, with labels `(N,)` and `(M,)` into `classnames`.
        text: class embeddings `(C, D)`, or None to leave them out. They need not lie near the images: CLIP's names
            and images live apart.
        max_classes, max_points: of a class and kind (this library's defaults: 6 and 60).

    Raises:
        ValueError: shapes or labels that do not fit, values that are not finite, or fewer than two classes with real
            and synthesized features.
    """
    names = list(classnames)
    sides = {REAL: _checked(REAL, real, real_labels, len(names))}
    sides[SYNTHESIZED] = _checked(SYNTHESIZED, synthesized, synthesized_labels, len(names))
    if text is not None:
        sides[TEXT] = _checked(TEXT, text, torch.arange(len(text)), len(names))
    for kind, (features, _) in sides.items():
        if features.shape[1] != real.shape[1]:
            raise ValueError(f"{kind} is {features.shape[1]} wide, real {real.shape[1]}; take both from one model")
    if max_classes < 2 or max_points < 1:
        raise ValueError(f"max_classes={max_classes}, max_points={max_points}: 2 classes and 1 point at least")
    features, labels = sides[REAL]
    present = [c for c in range(len(names)) if all(bool((sides[k][1] == c).any()) for k in (REAL, SYNTHESIZED))]
    if len(present) < 2:
        raise ValueError(f"{len(present)} classes have both real and synthesized rows; two are needed for a picture")
    if len(present) > max_classes:
        counts = torch.bincount(labels, minlength=len(names))
        ranked = counts[present].sort(descending=True).values
        enough = ranked[max(max_classes, -(-len(present) // 2)) - 1]  # equally many features: all of them
        present = [c for c in present if counts[c] >= enough]
    means = torch.stack([features[labels == c].mean(0) for c in present])
    chosen = _far_apart(means, max_classes)
    shown = [present[i] for i in chosen]
    residuals = torch.cat([features[labels == c] - means[i] for i, c in zip(chosen, shown, strict=True)])
    centre, axes = _plane(means[chosen], residuals)
    points = [
        {"class": place, "kind": kind, "xy": [round(v, DIGITS) + 0.0 for v in xy]}  # + 0.0: no negative zero
        for kind, (features, labels) in sides.items()
        for place, c in enumerate(shown)
        for xy in ((_every_nth(features[labels == c], max_points) - centre) @ axes).tolist()
    ]
    return {"classes": [names[c] for c in shown], "points": points}


def _checked(kind: str, features: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        shapes = f"rows {tuple(features.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"{kind}: {shapes}; (N, D) and (N,) are needed")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{kind} rows hold NaN or inf")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(f"{kind}: labels from {int(labels.min())} to {int(labels.max())} for {n_classes} class names")
    return F.normalize(features.detach().cpu().double(), dim=-1), labels.detach().cpu().long()


def _far_apart(means: Tensor, count: int) -> list[int]:
    """Indices in ascending order, at most `count`: each next one is farthest from those chosen so far."""
    first = int((means - means.mean(0)).norm(dim=1).argmax())
    chosen = [first]
    while len(chosen) < min(count, len(means)):
        distance = torch.cdist(means, means[chosen]).min(dim=1).values
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return sorted(chosen)


def _plane(means: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Centre `(D,)` and axes `(D, 2)`; the largest entry of an axis is positive, so that no axis flips."""
    centre = means.mean(0)
    axes = torch.linalg.svd(means - centre, full_matrices=False).Vh[:2]
    if len(means) == 2:  # their means lie on a line
        beside = residuals - residuals @ axes[:1].T @ axes[:1]
        axes = torch.cat([axes[:1], torch.linalg.svd(beside, full_matrices=False).Vh[:1]])
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return centre, (axes * largest.sign()).T


def _every_nth(features: Tensor, count: int) -> Tensor:
    if len(features) <= count:
        return features
    return features[torch.linspace(0, len(features) - 1, count).round().long()]

"""How well scores tell unknown images from known ones; larger scores are more unknown.

Which side of FPR95 is positive is not agreed on, so both are here and each says it in its name. pytorch-ood's FPR95TPR
takes the unknown as positive, most papers the known.

Notation: `N` known images, `U` others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive")
KEPT = 0.95  # share of the positives that is caught, or of known images that a threshold lets pass
TAIL = 0.005  # of the scores on either end, which histograms put into their outermost bins


def measures(known: Tensor, unknown: Tensor) -> dict[str, float]:
    """`METRICS` in percent, of scores `(N,)` and `(U,)`.

    ``fpr95_ood_positive``: known images flagged where 95 % of the unknown are caught; ``fpr95_id_positive``: unknown
    images let through where 95 % of the known are.

    Raises:
        ValueError: a side without scores, or scores that are NaN.
    """
    a, b = _checked(known), _checked(unknown)
    return {
        "auroc": 100 * _auroc(a, b),
        "aupr_in": 100 * _aupr(-a, -b),
        "aupr_out": 100 * _aupr(b, a),
        "fpr95_ood_positive": 100 * float((a >= np.sort(b)[math.floor((1 - KEPT) * len(b) + 1e-9)]).mean()),
        "fpr95_id_positive": 100 * float((b <= threshold_at(known)).mean()),
    }


def threshold_at(scores: Tensor, kept: float = KEPT) -> float:
    """The smallest score of `(N,)` known images that a share `kept` of them does not exceed."""
    return float(scores.double().sort().values[max(0, math.ceil(kept * len(scores) - 1e-9) - 1)])


def roc(known: Tensor, unknown: Tensor, at: Tensor) -> list[float]:
    """The share of the unknown caught where shares `at` of the known are flagged."""
    a, b = np.sort(_checked(known)), np.sort(_checked(unknown))
    index = len(a) - np.floor(at.double().numpy() * len(a) + 1e-9).astype(int)
    # Flagged is what lies above the threshold: with all of the known flagged there is nothing below.
    thresholds = np.where(index > 0, a[np.maximum(index - 1, 0)], -np.inf)
    caught = 1 - np.searchsorted(b, thresholds, "right") / len(b)
    return [round(float(value), 4) for value in caught]


def histogram(groups: dict[str, Tensor], bins: int = 40) -> dict[str, Any]:
    """`edges` (bins + 1) and, of every group of scores, how many are in each bin.

    The edges leave out the outermost half percent on either side, which a few strange images would stretch; what
    lies beyond them is counted in the outermost bins.
    """
    every = np.concatenate([_checked(scores) for scores in groups.values()])
    low, high = (float(value) for value in np.quantile(every, (TAIL, 1 - TAIL)))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = {
        name: np.histogram(np.clip(_checked(scores), low, high), edges)[0].tolist() for name, scores in groups.items()
    }
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts}


def _checked(scores: Tensor) -> np.ndarray:
    values = scores.detach().cpu().double().numpy()
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(
            f"scores of shape {tuple(scores.shape)}, {int(torch.isnan(scores).sum())} of them NaN: one "
            "number for each image, and at least one image, is needed"
        )
    return values


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    ordered = np.sort(known)
    below, upto = np.searchsorted(ordered, unknown, "left"), np.searchsorted(ordered, unknown, "right")
    return float((below + upto).mean() / 2 / len(known))


def _aupr(positive: np.ndarray, negative: np.ndarray) -> float:
    """Average precision, images of equal score together."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(order < len(positive))
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / len(positive)
    return float(np.sum(np.diff(recall, prepend=0) * precision))

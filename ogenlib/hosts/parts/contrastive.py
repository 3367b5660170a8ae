"""Losses in which the images and the texts of a batch meet each other.

Notation: `B` pairs, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REPEATS = ("negatives", "masked", "positives")


def pair_logits(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """`(B, B)` fp32 scaled cosines of unit features; not under autocast, where a hundredth of a cosine is one logit."""
    with torch.autocast(images.device.type, enabled=False):
        return scale * images.float() @ texts.float().T


def info_nce(
    z: Tensor, t: Tensor, scale: Tensor | float, *, same: Tensor | None = None, repeats: str = "negatives"
) -> Tensor:
    """CLIP's loss: mean cross-entropy of each image among the texts and of each text among the images; a scalar.

    Args:
        z, t: unit features `(B, D)` of images and of their texts.
        scale: of the cosines, exponentiated already.
        same: `(B, B)` bool, symmetric and true on the diagonal: which pairs repeat each other (their texts say the
            same). None where that does not matter.
        repeats: what a pair's repeats are to it: ``negatives``, as every other pair (CLIP, FLYP); ``masked``, left out
            of its softmax; ``positives``, sharing its target evenly. Where repeats have exactly the same text
            features, ``negatives`` and ``positives`` are the same loss.

    Raises:
        ValueError: another `repeats`, or one that needs `same` without it.
    """
    if repeats not in REPEATS:
        raise ValueError(f"repeats={repeats!r}: must be one of {', '.join(REPEATS)}")
    if repeats != "negatives" and same is None:
        raise ValueError(f"repeats={repeats!r} needs same=, which pairs repeat each other")
    with torch.autocast(z.device.type, enabled=False):
        logits = pair_logits(z, t, scale)
        target: Tensor = torch.arange(len(z), device=z.device)
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        alike = own if same is None else same
        if repeats == "masked":
            logits = logits.masked_fill(alike & ~own, -torch.inf)
        elif repeats == "positives":
            target = alike / alike.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

"""MPM-NCE: a contrastive loss with several positives, a margin and smoothed targets.

"Efficient and Versatile Robust Fine-Tuning of Zero-shot Models", Kim et al., ECCV 2024 (R-Adapter).
https://arxiv.org/abs/2408.05749

Reproduced: an image's target is spread evenly over all texts of its class, with a share `smoothing` spread over the
other ones; a margin is added to the cosines of negative pairs before the softmax; both directions.
Different: the mean over rows and directions, where the sum is written; a row without negatives (a batch of one class)
is not smoothed, where the written formula divides by zero.

Notation: `B` images, `T` texts, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_targets(positive: Tensor, smoothing: float) -> Tensor:
    """`(N, M)` distributions over `M`, of `positive` `(N, M)` bool.

    ``(1 - smoothing) / P`` for each of a row's `P` positives and ``smoothing / (M - P)`` for each other column; a row
    without others has ``1 / P``.

    Raises:
        ValueError: a row without a positive.
    """
    own = positive.sum(dim=1, keepdim=True)
    if not bool(own.all()):
        raise ValueError(
            "a row has no positive; every image needs a text of its class among the texts, and each text an image"
        )
    others = positive.shape[1] - own
    share = torch.where(others > 0, smoothing, 0.0)
    return torch.where(positive, (1 - share) / own, share / others.clamp_min(1))


def mpm_nce(
    images: Tensor, texts: Tensor, positive: Tensor, *, temperature: Tensor | float, margin: float, smoothing: float
) -> Tensor:
    """Scalar, fp32: cross-entropy to the soft targets, the mean of image to text and text to image.

    Args:
        images, texts: unit features `(B, D)` and `(T, D)`.
        positive: `(B, T)` bool, which pairs belong together.
        temperature: the cosines are divided by it (0.01 in the paper).
        margin: added to the cosines of negative pairs (0.05 in the paper).
        smoothing: of the targets, 0 to 1; the paper's value was not found.

    Raises:
        ValueError: shapes that do not fit, or an image or text without a positive.
    """
    if positive.shape != (len(images), len(texts)):
        raise ValueError(f"positive is {tuple(positive.shape)}, expected ({len(images)}, {len(texts)}): image by text")
    with torch.autocast(images.device.type, enabled=False):  # a hundredth of a cosine is one logit
        cosines = images.float() @ texts.float().T
        logits = (cosines + margin * (~positive)) / temperature
        forth = F.cross_entropy(logits, soft_targets(positive, smoothing))
        back = F.cross_entropy(logits.T, soft_targets(positive.T, smoothing))
        return (forth + back) / 2

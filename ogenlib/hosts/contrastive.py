"""Losses in which the images and the texts of a batch meet each other.

Notation: `B` pairs, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(z: Tensor, t: Tensor, scale: Tensor | float) -> Tensor:
    """CLIP's loss: mean cross-entropy of each image among the texts and of each text among the images; a scalar.

    Every other pair of the batch is a negative, one of the same class too.

    Args:
        z, t: unit rows `(B, D)` of images and of their texts.
        scale: of the cosines, exponentiated already.
    """
    logits = scale * z @ t.T
    target = torch.arange(len(z), device=z.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

"""A small world of classes whose images are Gaussian clouds around a linear map of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

D = 16


@dataclass(frozen=True)
class World:
    """Known classes with images, and unknown ones whose images only the tests see."""

    features: Tensor
    labels: Tensor
    known: Tensor
    unknown: Tensor
    unknown_features: Tensor  # (U, n, D)


def make_world(
    n_known: int = 40, n_unknown: int = 12, n_images: int = 24, dim: int = D, seed: int = 0, rank: int = 4
) -> World:
    """`rank`: dimensions that the class embeddings really have."""
    generator = torch.Generator().manual_seed(seed)
    n_classes = n_known + n_unknown
    low = F.normalize(torch.randn(n_classes, rank, generator=generator), dim=-1)
    embeddings = F.normalize(low @ torch.randn(rank, dim, generator=generator), dim=-1)
    offset = torch.randn(dim, generator=generator) / dim**0.5  # images and names live apart, as in CLIP
    centres = embeddings @ torch.randn(dim, dim, generator=generator) / dim**0.5 + offset
    noise = 0.15 * torch.randn(n_classes, n_images, dim, generator=generator)
    images = F.normalize(F.normalize(centres, dim=-1)[:, None] + noise, dim=-1)
    order = torch.randperm(n_known * n_images, generator=generator)
    return World(
        images[:n_known].flatten(0, 1)[order],
        torch.arange(n_known).repeat_interleave(n_images)[order],
        embeddings[:n_known],
        embeddings[n_known:],
        images[n_known:],
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

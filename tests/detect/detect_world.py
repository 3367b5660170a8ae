"""A small world of names and images in which known and unknown classes can be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Names `(C, D)` and `(U, D)`, fitted images with labels, and images of known and of unknown classes."""

    names: Tensor
    others: Tensor
    fit_x: Tensor
    fit_y: Tensor
    known: Tensor
    unknown: Tensor


def make_world(classes: int = 12, others: int = 8, dim: int = 32, shots: int = 4, seed: int = 0) -> World:
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws)

    gap = 3 * F.normalize(normal(dim), dim=0)
    names = F.normalize(0.5 * normal(dim) + normal(classes + others, dim) / dim**0.5 * 3, dim=-1)
    visual = 0.6 * normal(classes + others, dim) / dim**0.5

    def images(labels: Tensor) -> Tensor:
        return 7 * F.normalize(gap + names[labels] + visual[labels] + 0.9 * normal(len(labels), dim) / dim**0.5, dim=-1)

    fit_y = torch.arange(classes).repeat_interleave(shots)
    fit_x = images(fit_y)
    known = images(torch.arange(classes).repeat_interleave(20))
    unknown = images(torch.arange(classes, classes + others).repeat_interleave(20))
    return World(names[:classes], names[classes:], fit_x, fit_y, known, unknown)

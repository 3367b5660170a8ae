"""A random table and images for the hosts that need no tower."""

from __future__ import annotations

import torch
from torch import Tensor

from ogenlib.towers import EmbeddingTable

NAMES = ("dog", "red_apple", "train")
OTHERS = ("fox", "bus")


def make_table(width: int = 8, seed: int = 0) -> EmbeddingTable:
    generator = torch.Generator().manual_seed(seed)
    names = (*NAMES, *OTHERS)
    return EmbeddingTable(names, 3 * torch.randn(len(names), width, generator=generator), logit_scale=10.0)


def noise(shape: torch.Size, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

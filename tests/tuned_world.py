"""Pictures and a small bank for hosts that train towers, and every such host with options that suit it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pixel_world import KNOWN, NEW, TEMPLATE, pictures
from torch import Tensor

from ogenlib.data import PixelBank
from ogenlib.hosts import Batch, MethodInfo
from ogenlib.hosts.parts.tuned_towers import TunedTowers
from ogenlib.towers import Backbone

NAMES = (*KNOWN, *NEW)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 5, "lr": 1e-4, "warmup_steps": 0, "schedule": "steps"}

__all__ = ["KNOWN", "NAMES", "NEW", "QUICK", "TEMPLATE", "BothTowers", "batch_of", "small_bank"]


class BothTowers(TunedTowers):
    """Both towers by cross-entropy, nothing else."""

    info = MethodInfo("both_towers", "fine-tuning", "Both towers", "https://example.org", 2026)

    def __init__(self, clip: Backbone, names: Sequence[str], templates: str = TEMPLATE, **options: Any) -> None:
        super().__init__(clip, names, templates, **options)


def small_bank(clip: Backbone, views: int = 2, names: Sequence[str] = KNOWN) -> PixelBank:
    return PixelBank.load(clip, pictures(3, names), views=views, seed=1)


def batch_of(bank: PixelBank, seed: int = 0) -> Batch:
    """Every image in its first view."""
    rows = torch.arange(len(bank))
    pixels: Tensor = bank.pixels(rows, torch.zeros_like(rows))
    draws = torch.Generator().manual_seed(seed)
    return Batch(bank.labels, pixels=pixels, generator=draws, total=len(rows), rows=rows)

"""A host that reads pixels, as small as can be, and pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import ImageSet, load_dataset
from ogenlib.hosts import Batch, MethodInfo
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

KNOWN = ("bird", "boat", "fruit", "clock")
NEW = ("money", "tool")
TEMPLATE = "an icon of a {}."


class PixelShift(AnchoredHost):
    """Adds a learned colour to every pixel; class weights are zero-shot."""

    info = MethodInfo("pixel_shift", "prompt", "A colour", "https://example.org", 2026)
    uses_cached_features: ClassVar[bool] = False

    def __init__(self, clip: ClipLike, names: Sequence[str], templates: str | Sequence[str] = TEMPLATE) -> None:
        super().__init__(clip, names, templates)
        self.shift = nn.Parameter(torch.zeros(3, 1, 1, device=clip.device))
        self.seen: list[Batch] = []

    def image_features(self, batch: Batch) -> Tensor:
        if batch.pixels is None:
            raise ValueError("pixel_shift needs pixels: PixelBank.load(clip, images)")
        self.seen.append(batch)
        return self.clip.encode_image(batch.pixels + self.shift)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        return self.anchor(self.names if names is None else names)


class Prepared(PixelShift):
    """Prepares itself with features, as OGEN does."""

    info = MethodInfo("pixel_shift_prepared", "prompt", "A colour", "https://example.org", 2026)
    prepared: Any = None

    def prepare(self, data: Any, epochs: int, seed: int) -> None:
        self.prepared = data


def pictures(per_class: int = 3, names: Sequence[str] = KNOWN) -> ImageSet:
    """The first training images of each name."""
    images = load_dataset("emoji-categories").train.of_classes(names)
    labels = images.labels
    return images.subset(torch.cat([(labels == c).nonzero().flatten()[:per_class] for c in range(len(names))]))


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)

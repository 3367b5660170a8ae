"""Pairs for pools: random unit rows, and pictures of one colour with an encoder that reads it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ogenlib.anchors import CandidatePool
from ogenlib.data import FeatureBank, ImageSet, Item


def unit(count: int, dim: int = 16, seed: int = 0) -> Tensor:
    """`(count, dim)` random unit rows."""
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def made_pool(images: Tensor, **options: Any) -> CandidatePool:
    """A pool in fp32 whose captions count its rows."""
    captions = [f"picture {i}" for i in range(len(images))]
    return CandidatePool.from_features(images, captions, dtype=torch.float32, **options)


def made_bank(features: Tensor, labels: list[int], names: tuple[str, ...]) -> FeatureBank:
    """One view of each image."""
    keys = [f"train/{i}" for i in range(len(labels))]
    return FeatureBank(features[:, None], torch.tensor(labels), names, [""] * len(labels), keys, {"data": {}})


class ColourClip:
    """Image features are fixed projections of a picture's mean colour, text features of a text's hash."""

    device = torch.device("cpu")
    preprocess_cfg: dict[str, Any] = {"size": (4, 4), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # noqa: RUF012
    preprocess = v2.Compose([v2.Resize((4, 4)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __init__(self, weights: int = 0, die_at: int | None = None) -> None:
        self.weights, self.die_at = weights, die_at
        self.projection = torch.randn(3, 8, generator=torch.Generator().manual_seed(weights))
        self.encoded, self.texts = 0, list[str]()

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        if self.die_at is not None and self.encoded + len(pixels) > self.die_at:
            raise KeyboardInterrupt
        self.encoded += len(pixels)
        features = pixels.mean((2, 3)) @ self.projection
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, texts: list[str], normalize: bool = True) -> Tensor:
        self.texts += texts
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        return torch.cat([unit(1, 8, seed) for seed in seeds])

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "colour", "weights_hash": str(self.weights), "preprocess": self.preprocess_cfg}


def pictures(count: int) -> tuple[ImageSet, dict[str, str]]:
    """Pictures of one random colour each, and their captions by key."""
    colours = np.random.default_rng(0).integers(1, 256, (count, 3), dtype=np.uint8)
    items = [
        Item(Image.fromarray(np.broadcast_to(colour, (4, 4, 3)).copy()), 0, "", f"colour/{i:03d}")
        for i, colour in enumerate(colours)
    ]
    return ImageSet(items, ["colour"]), {item.key: f"a picture of colour {i}" for i, item in enumerate(items)}

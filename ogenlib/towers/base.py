"""What hosts, training and evaluation need of a model, with towers behind it or without.

Notation: `B` images, `N` texts, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ogenlib.towers.image import ImageTower
from ogenlib.towers.text import TextTower


class ClipLike(nn.Module):
    """Base of `Backbone` (open_clip's towers) and `EmbeddingTable` (known features only).

    Frozen, in eval mode: `train()` is ignored. Where there is no tower, reading `text`, `image` or
    `preprocess` raises a ValueError that says so.

    Attributes:
        name, pretrained: what it was loaded by.
        precision: of the towers.
        preprocess: PIL image -> pixels `(3, height, width)`.
        preprocess_cfg: its settings, JSON-able; empty where there is no image tower.
        weights_hash: 16 hex digits over everything that decides its features.
    """

    name: str
    pretrained: str | None
    quick_gelu: bool
    precision: str
    embed_dim: int
    text: TextTower
    image: ImageTower
    preprocess: Callable[[Image.Image], Tensor]
    preprocess_cfg: dict[str, Any]
    weights_hash: str

    def train(self, mode: bool = True) -> ClipLike:
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        raise NotImplementedError

    @property
    def logit_scale(self) -> Tensor:
        """Scalar, fp32, already exponentiated (about 100 for OpenAI's CLIP)."""
        raise NotImplementedError

    @property
    def logit_bias(self) -> Tensor | None:
        """Scalar, fp32; None for models trained with a softmax."""
        raise NotImplementedError

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        """Features `(B, D)`, fp32, of preprocessed pixels `(B, 3, height, width)`."""
        raise NotImplementedError

    def encode_text(self, texts: str | Sequence[str], normalize: bool = True, chunk: int = 256) -> Tensor:
        """Features `(N, D)`, fp32, of plain texts."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """What a saved run or feature bank must be opened with; JSON-able."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "weights_hash": self.weights_hash,
            "quick_gelu": self.quick_gelu,
            "embed_dim": self.embed_dim,
            "preprocess": self.preprocess_cfg,
        }

"""The image tower contract: pixels in, un-normalised features out, exactly as open_clip computes them.

Notation: `B` images, `D` embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.towers.text import first

_FIXED_SIZE = ("VisionTransformer", "ModifiedResNet")


class ImageTower:
    """The image side of an open_clip model; holds a reference to `model.visual`, never a copy.

    Attributes:
        image_size: `(height, width)` the tower was built for.
        embed_dim: `D`.
        supports_visual_prompts: extra tokens can be put among the patches without leaking into the
            pooling (open_clip's own vision transformer, pooled at its class token).
    """

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        size = getattr(visual, "image_size", 224)  # 224 is open_clip's default preprocessing size
        self.image_size: tuple[int, int] = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        self.supports_visual_prompts = _takes_prompts(visual)
        self.embed_dim = self._find_embed_dim()

    @classmethod
    def from_open_clip(cls, model: nn.Module) -> ImageTower:
        """The tower of `model`, which is put in eval mode (batch norm, patch dropout).

        Raises:
            TypeError: the model has no image tower.
        """
        visual = getattr(model, "visual", None)
        if not isinstance(visual, nn.Module):
            raise TypeError(f"{type(model).__name__} has no image tower (`visual`); give an open_clip CLIP model")
        visual.eval()
        return cls(visual)

    @property
    def dtype(self) -> torch.dtype:
        """What pixels are cast to: the dtype of the first convolution."""
        kernels = (p.dtype for p in self.visual.parameters() if p.ndim == 4)
        return next(kernels, next(self.visual.parameters()).dtype)

    @property
    def device(self) -> torch.device:
        return next(self.visual.parameters()).device

    def encode(self, pixels: Tensor) -> Tensor:
        """Features `(B, D)` of preprocessed pixels `(B, 3, height, width)`.

        Raises:
            ValueError: wrong shape, or a size that a tower with fixed positions cannot read.
        """
        fixed = type(self.visual).__name__ in _FIXED_SIZE
        wrong_size = fixed and tuple(pixels.shape[-2:]) != self.image_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or wrong_size:
            height, width = self.image_size
            raise ValueError(
                f"pixels are {tuple(pixels.shape)}, expected (B, 3, {height}, {width}): "
                "use backbone.preprocess(image) and stack"
            )
        return first(self.visual(pixels.to(self.dtype)))

    def _find_embed_dim(self) -> int:
        known = getattr(self.visual, "output_dim", None)
        if known is not None:
            return int(known)
        blank = torch.zeros(1, 3, *self.image_size, device=self.device)
        with torch.no_grad():
            return int(self.encode(blank).shape[1])


def _takes_prompts(visual: Any) -> bool:
    native = all(hasattr(visual, part) for part in ("_embeds", "_pool", "transformer"))
    return native and getattr(visual, "pool_type", None) == "tok" and getattr(visual, "attn_pool", None) is None

"""The image tower contract: pixels in, un-normalised features out, exactly as open_clip computes them.

Notation: `B` images, `V` prompt tokens, `W` width, `D` embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.towers.text import UnknownTower, first
from ogenlib.towers.visual_prompts import encode_prompted, patch_tokens, why_no_prompts

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
        self._no_prompts = why_no_prompts(visual)
        self.supports_visual_prompts = not self._no_prompts
        self.embed_dim = self._find_embed_dim()

    @classmethod
    def from_open_clip(cls, model: nn.Module) -> ImageTower:
        """The tower of `model`, which is put in eval mode (batch norm, patch dropout).

        Raises:
            UnknownTower: the model has no image tower.
        """
        visual = getattr(model, "visual", None)
        if not isinstance(visual, nn.Module):
            raise UnknownTower(f"{type(model).__name__} has no image tower (`visual`); give an open_clip CLIP model")
        visual.eval()
        return cls(visual)

    @property
    def dtype(self) -> torch.dtype:
        """What pixels are cast to: the dtype of the first convolution."""
        kernels = (p.dtype for p in self.visual.parameters() if p.ndim == 4)
        return next(kernels, next(self.visual.parameters()).dtype)

    @property
    def device(self) -> torch.device:
        """Where the tower's weights lie."""
        return next(self.visual.parameters()).device

    @property
    def width(self) -> int:
        """`W`; ValueError where the tower takes no visual prompts."""
        self._refuse_without_prompts()
        return int(self.visual.class_embedding.shape[-1])

    @property
    def layers(self) -> int:
        """Number of blocks; ValueError where the tower takes no visual prompts."""
        self._refuse_without_prompts()
        return len(self.visual.transformer.resblocks)

    def encode(self, pixels: Tensor, *, prompts: Tensor | None = None, deep: Tensor | None = None) -> Tensor:
        """Features `(B, D)` of preprocessed pixels `(B, 3, height, width)`.

        Args:
            prompts: `(V, W)`, put behind class token and patches before the first block: after `ln_pre`, without
                positions. The class token is pooled as ever. Stays in its own dtype outside; cast inside.
            deep: `(depth - 1, V, W)`; before block `i = 1..depth - 1` (the first block is 0) the prompt tokens'
                hidden states are replaced by `deep[i - 1]`. Later blocks go on with what came out.

        Raises:
            ValueError: wrong shape, a size that a tower with fixed positions cannot read, prompts for a tower
                that takes none (named), `deep` without `prompts`, or deeper than the tower.
        """
        self.check_pixels(pixels)
        if prompts is None:
            if deep is not None:
                raise ValueError("deep prompts were given without prompts: pass the first layer's as prompts=")
            return first(self.visual(pixels.to(self.dtype)))
        self._refuse_without_prompts()
        return encode_prompted(self.visual, pixels.to(self.dtype), prompts, deep)

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Class token and patches `(B, 1 + patches, W)` entering the first block; raises as `encode`."""
        self.check_pixels(pixels)
        self._refuse_without_prompts()
        return patch_tokens(self.visual, pixels.to(self.dtype))

    def _refuse_without_prompts(self) -> None:
        if self._no_prompts:
            raise ValueError(
                f"{self._no_prompts}: visual prompts need open_clip's own vision transformer pooled at its class "
                "token (ViT-B-32, ViT-B-16, ViT-L-14, ...); load one of these, or use a method without visual prompts"
            )

    def check_pixels(self, pixels: Tensor) -> None:
        """ValueError for another shape than `(B, 3, height, width)`, or a size that this tower cannot read."""
        fixed = type(self.visual).__name__ in _FIXED_SIZE
        wrong_size = fixed and tuple(pixels.shape[-2:]) != self.image_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or wrong_size:
            height, width = self.image_size
            raise ValueError(
                f"pixels are {tuple(pixels.shape)}, expected (B, 3, {height}, {width}): "
                "use backbone.preprocess(image) and stack"
            )

    def _find_embed_dim(self) -> int:
        known = getattr(self.visual, "output_dim", None)
        if known is not None:
            return int(known)
        blank = torch.zeros(1, 3, *self.image_size, device=self.device)
        with torch.no_grad():
            return int(self.encode(blank).shape[1])

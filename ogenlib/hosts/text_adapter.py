"""A small residual network on the class weights: the text branch of CLIP-Adapter.

"CLIP-Adapter: Better Vision-Language Models with Feature Adapters", Gao et al. 2021.
https://arxiv.org/abs/2110.04544

Reproduced: two linear maps with a bottleneck of D/4 on frozen text features, mixed with what they were made
from; any name passes through the same maps, so new names need no training.
Different: a residual ``t + ratio * MLP(t)`` in place of ``(1 - ratio) * t + ratio * MLP(t)``; the second map
starts at zero, so training begins at zero-shot exactly; no ReLU after it, so the residual can have either sign;
biases, which the released code has not (`bias=False`). The paper's image branch is `clip_adapter`.

Notation: `C` classes, `D` embedding, `H` hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES, MethodInfo, seeded
from ogenlib.hosts.parts.bottleneck import bottleneck, hidden_width
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

LR = 1e-3  # this library's choice for AdamW, not the authors'


@register
class TextAdapter(AnchoredHost):
    """Class weights ``unit(t + ratio * up(relu(down(t))))`` of zero-shot weights ``t``.

    Args:
        templates: of the zero-shot weights.
        hidden: `H`; None for `D` / 4.
        ratio: weight of the residual.
        bias: whether the maps have biases.
        generator: of the first map's random start; None for one seeded with 0, so that two builds are equal.

    Raises:
        ValueError: `hidden` below 1, or a ratio that is not a positive number.
    """

    info = MethodInfo(
        "text_adapter",
        "adapter",
        "CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
        "https://arxiv.org/abs/2110.04544",
        2021,
        title="Text adapter",
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        hidden: int | None = None,
        ratio: float = 1.0,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, templates)
        width = clip.embed_dim
        self.hidden, self.ratio, self.bias = hidden_width(hidden, width), ratio, bias
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError(f"ratio={ratio}: must be a positive number (1.0 adds the residual as it is)")
        self.anchor(self.names)  # refuses names without text features before any training
        source = seeded(generator)
        # Uniform in +-1/sqrt(D), as torch starts a Linear.
        start = (2 * torch.rand(self.hidden, width + 1, generator=source) - 1) / width**0.5
        self.down = nn.Parameter(start[:, :width].contiguous().to(clip.device))
        self.up = nn.Parameter(torch.zeros(width, self.hidden, device=clip.device))
        self.down_bias, self.up_bias = None, None
        if bias:
            self.down_bias = nn.Parameter(start[:, width].contiguous().to(clip.device))
            self.up_bias = nn.Parameter(torch.zeros(width, device=clip.device))

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` for any names."""
        t = self.anchor(self.names if names is None else names)
        residual = bottleneck(t, self.down, self.up, self.down_bias, self.up_bias)
        return F.normalize(t + self.ratio * residual.float(), dim=-1)

    def train_settings(self) -> dict[str, Any]:
        """This library's learning rate."""
        return {"lr": LR}

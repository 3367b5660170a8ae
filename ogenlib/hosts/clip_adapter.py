"""CLIP-Adapter: a small network on the image feature, mixed with the feature itself.

"CLIP-Adapter: Better Vision-Language Models with Feature Adapters", Gao et al. 2021.
https://arxiv.org/abs/2110.04544

Reproduced: the image branch as the released code has it: ``ratio * relu(up(relu(down(f)))) + (1 - ratio) * f``, ratio
0.2, a bottleneck of D/4, no biases, torch's own random start; zero-shot weights for any names.
Different: `f` is the unit feature, the released code's is not normalised; without biases the mix only changes in
length, which the cosine does not see. Training settings are this library's. The paper's text branch is
`text_adapter`.

The adapter stands in `logits`, not in `image_features`: whatever scores frozen features (banks, synthesized features,
the zero-shot reference) hands them over as they are.

Notation: `B` images, `C` classes, `D` embedding, `H` hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts.base import DEFAULT_TEMPLATES, MethodInfo, seeded
from ogenlib.hosts.parts.bottleneck import bottleneck, hidden_width, linear
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

RATIO = 0.2  # released code
LR = 1e-3  # this library's choice for AdamW, not the authors'


@register
class CLIPAdapter(AnchoredHost):
    """Zero-shot weights, and image features that pass through a trained bottleneck.

    Args:
        templates: of the zero-shot weights.
        hidden: `H`; None for `D` / 4.
        ratio: share of the adapted feature, above 0 and at most 1.
        generator: of the random start; None for one seeded with 0, so that two builds are equal.

    Raises:
        ValueError: `hidden` below 1, or a ratio out of range.
    """

    info = MethodInfo(
        "clip_adapter",
        "adapter",
        "CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
        "https://arxiv.org/abs/2110.04544",
        2021,
        title="CLIP-Adapter",
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        hidden: int | None = None,
        ratio: float = RATIO,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, templates)
        width = clip.embed_dim
        self.hidden, self.ratio = hidden_width(hidden, width), ratio
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio={ratio}: must be above 0 and at most 1 (the released code's is {RATIO})")
        self.anchor(self.names)  # refuses names without text features before any training
        source = seeded(generator)
        self.down = linear(width, self.hidden, bias=False, source=source).to(clip.device)
        self.up = linear(self.hidden, width, bias=False, source=source).to(clip.device)

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> CLIPAdapter:
        """Ratio 0.2 and a bottleneck of D/4, as released."""
        return cls(clip, names, **options)

    def adapted(self, z: Tensor) -> Tensor:
        """Unit features `(B, D)` of frozen features `z` `(B, D)`."""
        adapted = bottleneck(z, self.down.weight, self.up.weight).relu().float()
        return F.normalize(self.ratio * adapted + (1 - self.ratio) * z, dim=-1)

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        """`(B, C)` scaled cosines of the adapted features and the weights."""
        return super().logits(self.adapted(z), w)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)`, zero-shot, for any names."""
        return self.anchor(self.names if names is None else names)

    def train_settings(self) -> dict[str, Any]:
        """This library's learning rate."""
        return {"lr": LR}

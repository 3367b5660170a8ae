"""MaPLe: deep text prompts, and visual prompts that are linear maps of them.

"MaPLe: Multi-modal Prompt Learning", Khattak et al., CVPR 2023. https://arxiv.org/abs/2210.03117

Reproduced: 2 tokens from the first words of "a photo of a" and learned ones (normal, std 0.02) in the next of 9
layers of the text tower; in each of those layers of the image tower, the tokens are an affine map of the text
tower's, one map a layer, those of layers 2, ..., 9 started equal as in the released code; cross-entropy.
Different: visual tokens join behind `ln_pre`, where the released code sends those of the first layer through it; both
towers get as many layers of prompts as the shallower one has.

Notation: `B` images, `C` classes, `D` embedding, `M` tokens, `T` text width, `W` image width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ogenlib.hosts.base import MethodInfo, seeded
from ogenlib.hosts.parts.deep_prompts import DeepPrompts
from ogenlib.hosts.registry import register
from ogenlib.towers import Backbone


@register
class MaPLe(DeepPrompts):
    """Deep text prompts that steer the image tower too.

    Args:
        context: words that start the first layer's text tokens; None for a random start.
        generator: of the random start; None for one seeded with 0, so that two builds are equal.
        options: those of `DeepPrompts`; `n_context` counts in both towers.

    Raises:
        ValueError: an image tower that takes no visual prompts or a text tower without deep prompts (named), a
            depth that the towers have not, token counts that do not fit, and what `CoOp` raises.
    """

    info = MethodInfo(
        "maple", "prompt", "MaPLe: Multi-modal Prompt Learning", "https://arxiv.org/abs/2210.03117", 2023, title="MaPLe"
    )
    published: ClassVar[dict[str, Any]] = {"lr": 3.5e-3, "optimizer": "sgd", "epochs": 5, "batch_size": 4}
    usual_tokens: ClassVar[int] = 2  # released code, configs/trainers/MaPLe
    usual_depth: ClassVar[int] = 9

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        source = seeded(generator)
        super().__init__(clip, names, context, generator=source, **options)
        # Uniform in +-1/sqrt(T), as torch starts a Linear; one start for the first map and one for all others.
        width, wide = clip.image.width, clip.text.width
        start = (2 * torch.rand(2, width, wide + 1, generator=source) - 1) / wide**0.5
        start = start[[0] + [1] * (self.depth - 1)].to(clip.device)
        self.coupling = nn.Parameter(start[..., :wide].contiguous())
        self.coupling_bias = nn.Parameter(start[..., wide].contiguous())

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> MaPLe:
        """2 tokens, 9 layers, SGD 3.5e-3, 5 epochs, batches of 4."""
        return cls(clip, names, **{"paper_training": True, **options})

    def visual_prompts(self) -> Tensor:
        """`(depth, M, W)`: each layer's text tokens through the layer's map."""
        return torch.baddbmm(self.coupling_bias[:, None], self.text_prompts(), self.coupling.transpose(1, 2))

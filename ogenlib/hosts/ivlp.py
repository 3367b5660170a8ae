"""IVLP: learned tokens in several layers of both towers, independent of each other.

"MaPLe: Multi-modal Prompt Learning", Khattak et al., CVPR 2023, where it is the baseline of independent
vision-language prompting. https://arxiv.org/abs/2210.03117

Reproduced: 2 text tokens from the first words of "a photo of a" and 2 visual tokens, each with its own learned
ones in 12 layers (normal, std 0.02); cross-entropy, as in the released code.
Different: visual tokens join behind `ln_pre`, where the released code sends those of the first layer through it; both
towers get as many layers of prompts as the shallower one has.

Notation: `B` images, `C` classes, `D` embedding, `M` text tokens, `V` visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ogenlib.hosts.base import MethodInfo, seeded
from ogenlib.hosts.parts.deep_prompts import DeepPrompts, check_count, random_prompts
from ogenlib.hosts.registry import register
from ogenlib.towers import Backbone


@register
class IVLP(DeepPrompts):
    """Deep text prompts and deep visual prompts.

    Args:
        context: words that start the first layer's text tokens; None for a random start.
        n_visual: `V`; None for `usual_tokens`.
        generator: of the random start; None for one seeded with 0, so that two builds are equal.
        options: those of `DeepPrompts`.

    Raises:
        ValueError: an image tower that takes no visual prompts or a text tower without deep prompts (named), a
            depth that the towers have not, token counts that do not fit, and what `CoOp` raises.
    """

    info = MethodInfo(
        "ivlp",
        "prompt",
        "MaPLe: Multi-modal Prompt Learning (independent vision-language prompting)",
        "https://arxiv.org/abs/2210.03117",
        2023,
        title="IVLP",
    )
    published: ClassVar[dict[str, Any]] = {"lr": 3.5e-3, "optimizer": "sgd", "epochs": 5, "batch_size": 4}
    usual_tokens: ClassVar[int] = 2  # released code, configs/trainers/IVLP
    usual_depth: ClassVar[int] = 12

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        n_visual: int | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        source = seeded(generator)
        super().__init__(clip, names, context, generator=source, **options)
        count = check_count("n_visual", self.usual_tokens if n_visual is None else n_visual)
        self.visual = random_prompts(self.depth, count, clip.image.width, generator=source, device=clip.device)

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> IVLP:
        """The released settings: SGD 3.5e-3, 5 epochs, batches of 4."""
        return cls(clip, names, **{"paper_training": True, **options})

    def visual_prompts(self) -> Tensor:
        """`(depth, V, W)`."""
        return self.visual

"""VPT: learned tokens among the image patches, in the first layer or in every one.

"Visual Prompt Tuning", Jia et al., ECCV 2022. https://arxiv.org/abs/2203.12119

Reproduced: tokens put into the input of the first block (shallow) or of each block (deep, replaced in every one);
the class token is pooled. As the MaPLe code runs it on CLIP: the class weights are zero-shot and fixed, 8 tokens, 12
layers, normal start with std 0.02 (the paper: uniform).
Different: the tokens join behind `ln_pre`, where the MaPLe code sends those of the first layer through it; a tower
with fewer layers takes prompts in all of them.

Notation: `B` images, `C` classes, `D` embedding, `V` visual tokens, `W` image width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ogenlib.hosts.base import DEFAULT_TEMPLATES, MethodInfo, seeded
from ogenlib.hosts.parts.deep_prompts import PromptedImages, check_count, random_prompts, usable_depth
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

TOKENS, DEPTH = 8, 12  # MaPLe code, configs/trainers/VPT


@register
class VPT(PromptedImages, AnchoredHost):
    """Visual prompts against fixed zero-shot weights.

    Args:
        templates: of the zero-shot weights, one or several to average.
        n_visual: `V`, tokens in each layer.
        depth: layers with tokens: 1 is VPT-shallow; None for 12, or all of a tower with fewer.
        paper_training: `train_settings` gives the released code's settings.
        generator: of the random start; None for one seeded with 0, so that two builds are equal.

    Raises:
        ValueError: an image tower that takes no visual prompts (named), a depth it has not, or no tokens.
    """

    info = MethodInfo("vpt", "prompt", "Visual Prompt Tuning", "https://arxiv.org/abs/2203.12119", 2022, title="VPT")
    published: ClassVar[dict[str, Any]] = {"lr": 2.5e-3, "optimizer": "sgd", "epochs": 5, "batch_size": 4}

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        n_visual: int = TOKENS,
        depth: int | None = None,
        paper_training: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, templates)
        width, layers = clip.image.width, clip.image.layers
        self.depth = usable_depth(depth, DEPTH, layers, "the image tower")
        shape = (self.depth, check_count("n_visual", n_visual), width)
        self.visual = random_prompts(*shape, generator=seeded(generator), device=clip.device)
        self.paper_training = paper_training

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> VPT:
        """VPT-deep as in the MaPLe code: 8 tokens, 12 layers, SGD 2.5e-3, 5 epochs, batches of 4."""
        return cls(clip, names, **{"paper_training": True, **options})

    @classmethod
    def shallow(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> VPT:
        """VPT-shallow: tokens in the first layer only."""
        return cls(clip, names, **{"depth": 1, **options})

    def visual_prompts(self) -> Tensor:
        """`(depth, V, W)`."""
        return self.visual

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` for any names; zero-shot, never trained."""
        return self.anchor(self.names if names is None else names)

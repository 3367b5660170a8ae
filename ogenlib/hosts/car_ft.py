"""CAR-FT: full fine-tuning that keeps what the model says about the context of an image.

"Context-Aware Robust Fine-Tuning", Mao et al. 2022 (IJCV 2024). https://arxiv.org/abs/2211.16175

Reproduced: cross-entropy plus ``weight * KL(before || after)`` of the softmax over contexts, whose weights are the text
features of each prompt template averaged over the classes; they and the frozen image tower are those of zero-shot.
Different: contexts are CLIP's 80 templates for ImageNet unless others are given. The weight is not stated in what could
be read: 1 is this library's choice. ``paper`` has the training settings of full fine-tuning.

Notation: `B` images, `C` classes, `D` embedding, `T` contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from ogenlib.distill import kl_divergence
from ogenlib.hosts.base import Batch, MethodInfo
from ogenlib.hosts.parts.penalised import PenalisedFT
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import check_templates, zero_shot_weights
from ogenlib.towers import ClipLike


@register
class CARFT(PenalisedFT):
    """Image tower and head, with the distribution over contexts held to the zero-shot model's.

    Args:
        weight: of the divergence.
        contexts: prompt templates, two or more; None for CLIP's 80.
        options: those of `FullFT`; its templates are those of the head's start.

    Raises:
        ValueError: fewer than two contexts, one without ``{}``, and what `PenalisedFT` raises.
    """

    info = MethodInfo(
        "car_ft",
        "fine-tuning",
        "Context-Aware Robust Fine-Tuning",
        "https://arxiv.org/abs/2211.16175",
        2022,
        title="CAR-FT",
    )
    reads_frozen: ClassVar[bool] = True
    term: ClassVar[str] = "context"
    usual_weight: ClassVar[float] = 1.0

    def __init__(
        self, clip: ClipLike, names: Sequence[str], *args: Any, contexts: Sequence[str] | None = None, **options: Any
    ) -> None:
        super().__init__(clip, names, *args, **options)
        given = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES] if contexts is None else contexts
        self.contexts = check_templates(given)
        if len(self.contexts) < 2:
            raise ValueError(f"contexts={list(self.contexts)}: one context has no distribution; give two or more")
        self._weights: Tensor | None = None

    @torch.no_grad()
    def context_weights(self) -> Tensor:
        """Unit weights `(T, D)`: the text features of each template, averaged over the training names."""
        if self._weights is None:
            with torch.autocast(self.device.type, enabled=False):
                each = [zero_shot_weights(self.clip, self.names, template).mean(0) for template in self.contexts]
                self._weights = F.normalize(torch.stack(each), dim=-1)
        return self._weights.to(self.device)

    def penalty(self, batch: Batch, z: Tensor, w: Tensor) -> Tensor:
        """KL(zero-shot || tuned) over contexts, mean over images."""
        contexts = self.context_weights()
        return kl_divergence(self.logits(z, contexts), self.logits(self.frozen_features(batch), contexts))

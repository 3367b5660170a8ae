"""Self-distillation: full fine-tuning held to the zero-shot model's own predictions.

"Distilling the Knowledge in a Neural Network", Hinton et al. 2015. https://arxiv.org/abs/1503.02531

Reproduced: cross-entropy plus ``weight * T^2 * KL(teacher || student)`` of predictions softened by `T`; the teacher is
fixed.
Different: the paper's teacher is a larger network; this one is the model before fine-tuning, as in the baseline of that
name in papers on robust fine-tuning. Weight and temperature are this library's choice.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ogenlib.distill import kl_divergence
from ogenlib.hosts.base import Batch, MethodInfo
from ogenlib.hosts.parts.penalised import PenalisedFT
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike


@register
class KD(PenalisedFT):
    """Image tower and head, held to zero-shot predictions on the training images.

    Args:
        weight: of the divergence.
        temperature: `T` of both sides.
        options: those of `FullFT`.

    Raises:
        ValueError: a temperature that is not positive, and what `PenalisedFT` raises.
    """

    info = MethodInfo(
        "kd",
        "fine-tuning",
        "Distilling the Knowledge in a Neural Network",
        "https://arxiv.org/abs/1503.02531",
        2015,
        title="Self-distillation (KD)",
        aliases=("self-distillation", "distillation"),
    )
    reads_frozen: ClassVar[bool] = True
    term: ClassVar[str] = "kd"
    usual_weight: ClassVar[float] = 1.0

    def __init__(
        self, clip: ClipLike, names: Sequence[str], *args: Any, temperature: float = 1.0, **options: Any
    ) -> None:
        super().__init__(clip, names, *args, **options)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature={temperature}: must be a positive number")
        self.temperature = temperature

    def penalty(self, batch: Batch, z: Tensor, w: Tensor) -> Tensor:
        """``T^2 * KL(zero-shot || tuned)`` over the training names, mean over images."""
        with torch.no_grad():
            reference = self.logits(self.frozen_features(batch), self.anchor(self.names))
        return kl_divergence(self.logits(z, w), reference, self.temperature)

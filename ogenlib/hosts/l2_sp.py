"""L2-SP: full fine-tuning that pays for the squared distance from the weights it started at.

"Explicit Inductive Bias for Transfer Learning with Convolutional Networks", Li et al., ICML 2018.
https://arxiv.org/abs/1802.01483

Reproduced: cross-entropy plus ``weight / 2 * ||theta - theta_0||^2`` in place of weight decay.
Different: the paper's last layer is new and decays towards zero with a weight of its own (0.01); here the head starts
at the zero-shot weights and is held to them like the tower. The paper searches the weight among 1, 0.1, 0.01 and 0.001
on held-out images; 0.1 is this library's choice. ``paper`` has the training settings of full fine-tuning, without
weight decay: those of the paper are of convolutional networks.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ogenlib.hosts.base import Batch, MethodInfo
from ogenlib.hosts.parts.penalised import PenalisedFT
from ogenlib.hosts.registry import register


@register
class L2SP(PenalisedFT):
    """Image tower and head, held near their start.

    Args:
        weight: of half the squared distance; the options of `FullFT` besides.
    """

    info = MethodInfo(
        "l2_sp",
        "fine-tuning",
        "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
        "https://arxiv.org/abs/1802.01483",
        2018,
        title="L2-SP",
    )
    term: ClassVar[str] = "l2_sp"
    usual_weight: ClassVar[float] = 0.1

    def penalty(self, batch: Batch, z: Tensor, w: Tensor) -> Tensor:
        """Half the squared distance of all trained tensors from their start; frozen ones (`rates`) count nothing."""
        start = self.anchor(self.vector_names)
        pairs = [*self.frozen_twins().values(), (self.head, start)]
        distances = [(p - s.detach().float()).square().sum() for p, s in pairs if p.requires_grad]
        return torch.stack(distances).sum() / 2

    def train_settings(self) -> dict[str, Any]:
        """Those of full fine-tuning without weight decay, whose place the term takes."""
        return {**super().train_settings(), "weight_decay": 0.0}

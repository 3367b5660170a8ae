"""ProGrad: CoOp that takes no step against what zero-shot CLIP knows.

"Prompt-aligned Gradient for Prompt Tuning", Zhu et al., ICCV 2023. https://arxiv.org/abs/2205.14865

Reproduced: the gradient of the cross-entropy loses ``strength`` times its component along the gradient of
KL(zero-shot || prompted) on the training names wherever the two point apart (negative cosine), each parameter on its
own; strength 1 and temperature 1, as the released scripts have them. Where they agree it stays as it is.
Different: the zero-shot weights come from the templates given, the authors' from one sentence a dataset, which also
starts the last of their 16 tokens; here CoOp's settings hold, theirs are SGD 0.002 with batches of 32, 100 epochs at 4
shots. With several processes each projects the gradient of its own share of the batch before they are averaged; the
released code runs on one.

The projection is made in the backward pass, on the gradients as they arrive there: a gradient scaler's factor does
not change it, and terms that others add to the loss are not projected.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.distill import kl_divergence
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, Host, MethodInfo
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import Anchored, ZeroShotAnchor
from ogenlib.towers import Backbone

STRENGTH, TEMPERATURE = 1.0, 1.0  # released scripts and configurations


@register
class ProGrad(Anchored, CoOp):
    """CoOp with projected gradients.

    Args:
        strength: share of the conflicting component that is taken away; 0 is CoOp.
        temperature: of both sides of the KL term.
        templates: of the zero-shot weights.
        options: those of `CoOp`.

    Raises:
        ValueError: a negative strength, a temperature that is not positive, and what `CoOp` raises.
    """

    info = MethodInfo(
        "prograd",
        "prompt",
        "Prompt-aligned Gradient for Prompt Tuning",
        "https://arxiv.org/abs/2205.14865",
        2023,
        title="ProGrad",
    )

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        strength: float = STRENGTH,
        temperature: float = TEMPERATURE,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, context, **options)
        if not (strength >= 0 and math.isfinite(strength)):
            raise ValueError(f"strength={strength}: must be 0 or more (the released code's is {STRENGTH})")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature}: must be a positive number (released: {TEMPERATURE})")
        self.strength, self.temperature = strength, temperature
        self.anchor = ZeroShotAnchor(clip, templates)

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> CoOp:
        """4 tokens from "a photo of a", strength 1 (SGD 0.002, batches of 32, 100 epochs at 4 shots)."""
        return cls.base_to_new(clip, names, **options)

    @classmethod
    def ogen_kind(cls) -> str:
        """``anchored prompt``: its own loss pulls it to zero-shot already."""
        return "anchored prompt"

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce`` over the training names, whose gradient is the projected one."""
        z = self.image_features(batch) if z is None else z
        w = self.class_weights() if w is None else w
        logits = self.logits(z, w)
        ce = F.cross_entropy(logits, batch.labels)
        if not (self.strength and torch.is_grad_enabled()):
            return {"ce": ce}
        with torch.no_grad():
            reference = Host.logits(self, z, self.anchor(self.names))
        kl = kl_divergence(logits, reference, self.temperature)
        return {"ce": _Projected.apply((ce, kl), self.strength, *self.trainable().values())}


def projected(gradient: Tensor, general: Tensor, strength: float) -> Tensor:
    """`gradient` less `strength` times its component along `general`, if they point apart; same shapes."""
    dot = (gradient * general).sum()
    size = general.square().sum()
    # Zero where there is nothing to conflict with; also keeps 0 / 0 out.
    share = torch.where((dot < 0) & (size > 0), strength * dot / size.where(size > 0, 1), 0)
    return gradient - share * general


class _Projected(torch.autograd.Function):
    """The value of one loss, with its gradient projected by that of another."""

    @staticmethod
    def forward(ctx: Any, losses: tuple[Tensor, Tensor], strength: float, *parameters: Tensor) -> Tensor:
        ctx.losses, ctx.strength, ctx.parameters = losses, strength, parameters
        return losses[0].detach().clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Any:
        # Other terms may still need the graph behind the losses, so it is kept.
        own, general = (
            torch.autograd.grad(loss, ctx.parameters, outputs[0].to(loss.dtype), retain_graph=True)
            for loss in ctx.losses
        )
        return None, None, *(projected(a, b, ctx.strength) for a, b in zip(own, general, strict=True))

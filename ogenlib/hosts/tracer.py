"""TRACER: contrastive fine-tuning with a teacher that weighs start and end of the run most.

"TRACER: Persistent Regularization for Robust Multimodal Finetuning", Asadollahzadeh et al., ICML 2026.
https://arxiv.org/abs/2605.29380

Reproduced, after the released code (HesamAsad/TRACER at 1f1e612): FLYP's contrastive loss; 0.9 times the distillation,
which is the sum of four terms: KL of the batch's image-text softmax to the teacher's, 2000 times the squared distance
of image and of text features to the teacher's (a mean over entries), the contrastive loss of the student's features
with the teacher's of the other side, and KL of these logits to the teacher's own; 0.05 times the Frobenius norm of the
product of the two towers' projections. The teacher is the mean of the start and of the weights after every step,
weighted by a Beta(0.5, 0.5) density read at ``(t + 1/2) / (steps + 1)``, and teaches from the second step on.
``paper``: AdamW 1e-5, weight decay 0.1, batches of 512, 10 epochs, 500 steps of warm-up, a cosine; the student is
tested.
The weights are those of the example scripts of the ablations (tracer_beta.sh and others, ViT-B/16): the one named
tracer.sh has all of them at zero, and the paper's own table was not looked at.
Different: the logit scale is not trained, as in this library's FLYP. With `every` above 1 the density still spans the
run, where the code then reads only its beginning.

Notation: `B` pairs, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ogenlib.distill import BetaTrajectoryAverage, kl_divergence
from ogenlib.hosts.base import MethodInfo
from ogenlib.hosts.parts.contrastive import pair_logits
from ogenlib.hosts.parts.self_distilled import Seen, SelfDistilled, both_ways, paired, updates
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

DISTILL, JOINT = 0.9, 0.05  # released code, example_scripts/tracer_beta.sh
RELATION, FEATURES, INTERACTION, CROSS = 1.0, 2000.0, 1.0, 1.0  # the same
BETA = 0.5  # released code, src/args.py


@register
class TRACER(SelfDistilled):
    """Both towers, by pairs, distilled from the trajectory's mean.

    Args:
        distill: weight of the distillation as a whole.
        relation, features, interaction, cross: weights within it, in the order of the module's docstring.
        joint, orthogonal: weights of the terms on the towers' projections.
        beta: both parameters of the density; 1 is the plain mean.
        every: steps between updates of the teacher.
        options: those of `FLYP` (templates, texts, chunk, paper_training).

    Raises:
        ValueError: a negative weight, a `beta` that is not positive, and what `SelfDistilled` raises.
    """

    info = MethodInfo(
        "tracer",
        "fine-tuning",
        "TRACER: Persistent Regularization for Robust Multimodal Finetuning",
        "https://arxiv.org/abs/2605.29380",
        2026,
        title="TRACER",
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        *args: Any,
        distill: float = DISTILL,
        relation: float = RELATION,
        features: float = FEATURES,
        interaction: float = INTERACTION,
        cross: float = CROSS,
        joint: float = JOINT,
        orthogonal: float = 0.0,
        beta: float = BETA,
        every: int = 1,
        **options: Any,
    ) -> None:
        weights = {"distill": distill, "joint": joint, "orthogonal": orthogonal}
        super().__init__(clip, names, *args, every=every, **weights, **options)
        self.relation, self.features, self.interaction, self.cross = relation, features, interaction, cross
        for name in ("relation", "features", "interaction", "cross"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value}: must be 0 or more")
        if not (beta > 0 and math.isfinite(beta)):
            raise ValueError(f"beta={beta}: must be a positive number (released: {BETA})")
        self.beta = beta

    def make_teacher(self, steps: int) -> BetaTrajectoryAverage:
        return BetaTrajectoryAverage(self.trainable(), updates(steps, self.every), self.beta, self.beta)

    def distillation(self, seen: Seen, scale: Tensor) -> Tensor:
        """The weighted sum of the four terms."""
        teacher = pair_logits(seen.teacher_images, seen.teacher_texts, scale)
        images = pair_logits(seen.images, seen.teacher_texts, scale)  # the student's images among the teacher's texts
        texts = pair_logits(seen.texts, seen.teacher_images, scale)
        terms = {
            "relation": both_ways(pair_logits(seen.images, seen.texts, scale), teacher) / 2,
            "features": F.mse_loss(seen.images, seen.teacher_images) + F.mse_loss(seen.texts, seen.teacher_texts),
            "interaction": (
                paired(seen.images, seen.teacher_texts, scale) + paired(seen.texts, seen.teacher_images, scale)
            )
            / 2,
            "cross": (kl_divergence(images, teacher) + kl_divergence(texts, teacher.T)) / 2,
        }
        return sum((getattr(self, name) * term for name, term in terms.items()), start=scale.new_zeros(()))

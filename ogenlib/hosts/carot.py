"""CaRot: contrastive fine-tuning with a constraint on the image projection and a slow teacher.

"Towards Calibrated Robust Fine-Tuning of Vision-Language Models", Oh et al., NeurIPS 2024.
https://arxiv.org/abs/2311.01723

Reproduced, after the released code (MLAI-Yonsei/CaRot at c3e8bdc): FLYP's contrastive loss; 0.05 times the Frobenius
norm of the product of the two towers' projections; 0.2 times the Frobenius norm (not squared) of ``V^T V - I`` of the
image projection; 1.5 times the distillation of the batch's image-text softmax from an averaged teacher, both ways
added. The teacher starts as the student, is updated after the first step and every 500 after it with a momentum that
rises linearly from 0.05 to 0.9 over the first fifth of the run, and teaches from the second step on. ``paper``: AdamW
1e-5, weight decay 0.1, batches of 512, 10 epochs, 500 steps of warm-up, a cosine; the student is tested.
Different: the logit scale is not trained, as in this library's FLYP. The distillation is KL where the code has
cross-entropy: the gradient is the same, the value smaller by the teacher's entropy. By default the teacher is updated
every 5 steps in place of 500, because a run of some hundred steps would see it updated once or never; that number is
ours. The weight on the projections' product is in the code's example scripts and was not looked for in the paper.

Notation: `B` pairs, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ogenlib.distill import EMA
from ogenlib.distill.named import NamedTensors
from ogenlib.hosts.base import MethodInfo
from ogenlib.hosts.parts.contrastive import pair_logits
from ogenlib.hosts.parts.self_distilled import Seen, SelfDistilled, both_ways
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

DISTILL, JOINT, ORTHOGONAL = 1.5, 0.05, 0.2  # released code, README and example_scripts/carot.sh
FIRST, LAST, RISE, PAPER_EVERY = 0.05, 0.9, 0.2, 500  # released code, src/args.py
EVERY = 5  # ours, for runs of some hundred steps


class RisingEMA(EMA):
    """A moving average whose decay rises linearly over the first part of a run.

    Args:
        steps: of the run; update `t` happens after step ``(t - 1) * every``, the first being step 0.
        every: steps between updates.
        first, last: the decay at the start, and from the share `rise` of the run on.
    """

    def __init__(
        self,
        tensors: NamedTensors,
        steps: int,
        every: int,
        first: float = FIRST,
        last: float = LAST,
        rise: float = RISE,
    ) -> None:
        super().__init__(tensors, last)
        self.steps, self.every, self.first, self.rise = steps, every, first, rise

    def decay_at(self, t: int) -> float:
        """Of update `t`."""
        step, until = (t - 1) * self.every, self.steps * self.rise
        return self.first + (self.decay - self.first) * step / until if step < until else self.decay

    def _rates(self, t: int) -> tuple[float, float]:
        decay = self.decay_at(t)
        return decay, 1 - decay

    def _settings(self) -> dict[str, int | float]:
        own = {"steps": self.steps, "every": self.every, "first": self.first, "rise": self.rise}
        return {**super()._settings(), **own}


@register
class CaRot(SelfDistilled):
    """Both towers, by pairs, with an orthogonal image projection and a teacher.

    Args:
        distill, joint, orthogonal: weights of the three terms besides the contrastive loss.
        every: steps between updates of the teacher.
        options: those of `FLYP` (templates, texts, chunk, paper_training).

    Raises:
        ValueError: see `SelfDistilled`.
    """

    info = MethodInfo(
        "carot",
        "fine-tuning",
        "Towards Calibrated Robust Fine-Tuning of Vision-Language Models",
        "https://arxiv.org/abs/2311.01723",
        2024,
        title="CaRot",
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        *args: Any,
        distill: float = DISTILL,
        joint: float = JOINT,
        orthogonal: float = ORTHOGONAL,
        every: int = EVERY,
        **options: Any,
    ) -> None:
        weights = {"distill": distill, "joint": joint, "orthogonal": orthogonal}
        super().__init__(clip, names, *args, every=every, **weights, **options)

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> CaRot:
        """As released: the teacher is updated every 500 steps."""
        return super().paper(clip, names, **{"every": PAPER_EVERY, **options})

    def make_teacher(self, steps: int) -> RisingEMA:
        return RisingEMA(self.trainable(), steps, self.every)

    def distillation(self, seen: Seen, scale: Tensor) -> Tensor:
        """KL of the batch's softmax, images among texts and texts among images, added."""
        student = pair_logits(seen.images, seen.texts, scale)
        return both_ways(student, pair_logits(seen.teacher_images, seen.teacher_texts, scale))

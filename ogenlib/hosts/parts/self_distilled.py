"""FLYP with a teacher that is an average of the student's own past: what CaRot and TRACER share.

Notation: `B` pairs of image and text, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.distill import kl_divergence
from ogenlib.distill.running import RunningAverage
from ogenlib.hosts.base import Batch
from ogenlib.hosts.flyp import FLYP
from ogenlib.hosts.parts.contrastive import info_nce, pair_logits
from ogenlib.hosts.parts.projections import distance_to_orthogonal, image_projection, joint_norm, text_projection
from ogenlib.towers import ClipLike
from ogenlib.utils.distributed import gather


@dataclass(frozen=True)
class Seen:
    """Unit features `(B, D)` of a step's images and texts, of all processes, by student and teacher."""

    images: Tensor
    texts: Tensor
    teacher_images: Tensor
    teacher_texts: Tensor


def both_ways(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of rows and of columns `(B, B)`, each a mean over them, added; a scalar.

    Its gradient is that of the cross-entropy with the teacher's softmax; the value is smaller by the teacher's entropy.
    """
    return kl_divergence(student, teacher) + kl_divergence(student.T, teacher.T)


def paired(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """Mean cross-entropy of each of `B` features to name its own partner of the other side; a scalar."""
    logits = pair_logits(images, texts, scale)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def updates(steps: int, every: int) -> int:
    """How often a teacher is updated in a run."""
    return math.ceil(steps / every)


class SelfDistilled(FLYP):
    """`FLYP`, terms on the towers' last maps, and distillation from an average over steps.

    The teacher is there while `fit` runs; before the first step is done it teaches nothing, as in both released codes.
    Subclasses write `make_teacher` and `distillation`.

    Args:
        distill: weight of the distillation; 0 keeps no teacher.
        joint, orthogonal: weights of `joint_norm` and `distance_to_orthogonal`.
        every: the teacher takes the student's weights in after the first step and every so many after it.
        options: those of `FLYP`.

    Raises:
        ValueError: a negative weight, `every` below 1, a tower without the map that a term is on, and what `FLYP`
            raises.
    """

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        *args: Any,
        distill: float,
        joint: float,
        orthogonal: float,
        every: int,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, *args, **options)
        for name, value in (("distill", distill), ("joint", joint), ("orthogonal", orthogonal)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value}: must be 0 or more")
        if every < 1:
            raise ValueError(f"every={every}: must be 1 step or more")
        if joint or orthogonal:
            image_projection(self.model)
        if joint:
            text_projection(self.model)
        self.distill, self.joint, self.orthogonal, self.every = distill, joint, orthogonal, every
        self.teacher: RunningAverage | None = None
        self._step = 0

    def make_teacher(self, steps: int) -> RunningAverage:
        """The average at the start of a run of so many steps; it is updated ``ceil(steps / every)`` times."""
        raise NotImplementedError

    def distillation(self, seen: Seen, scale: Tensor) -> Tensor:
        """A scalar, not yet weighted."""
        raise NotImplementedError

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``contrastive``, and weighted ``joint_norm``, ``orthogonal`` and ``distill``; those without weight, and the
        last before there is a teacher, are left out. All pairs of all processes meet each other."""
        z = self.image_features(batch) if z is None else z
        ids = self.pool.draw(batch)
        images, texts = gather(z, batch.total), gather(self.encode_ids(ids), batch.total)
        scale = self.clip.logit_scale
        terms = {"contrastive": info_nce(images, texts, scale)}
        if self.joint:
            terms["joint_norm"] = self.joint * joint_norm(image_projection(self.model), text_projection(self.model))
        if self.orthogonal:
            terms["orthogonal"] = self.orthogonal * distance_to_orthogonal(image_projection(self.model))
        if self.teacher is not None and self.teacher.t:
            with self.teacher.swapped():  # without gradients; the student's weights are back bit for bit after it
                taught = gather(self.image_features(batch), batch.total), gather(self.encode_ids(ids), batch.total)
            terms["distill"] = self.distill * self.distillation(Seen(images, texts, *taught), scale)
        return terms

    # --- training ---------------------------------------------------------------------------------------

    def on_start(self, epochs: int, steps: int) -> None:
        """Make the teacher of the weights as they are."""
        super().on_start(epochs, steps)
        self._step = 0
        self.teacher = self.make_teacher(epochs * steps) if self.distill else None

    def on_step_end(self) -> None:
        """Let the teacher take the student's weights in, where it is due."""
        super().on_step_end()
        if self.teacher is not None and self._step % self.every == 0:
            self.teacher.update(self.teacher.t + 1)
        self._step += 1

    def on_epoch_end(self, epoch: int, total: int) -> None:
        super().on_epoch_end(epoch, total)
        if epoch == total:
            self.teacher = None  # the student is what is kept

    def training_state(self) -> dict[str, Any]:
        own = {} if self.teacher is None else {"teacher": self.teacher.state_dict()}
        return {**super().training_state(), "step": self._step, **own}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        super().load_training_state(state)
        self._step = state["step"]
        if "teacher" not in state:
            self.teacher = None
        elif self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])

"""CLAP: a linear probe that starts at zero-shot and is held to it, class by class.

"A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", Silva-Rodriguez et al., CVPR 2024.
https://arxiv.org/abs/2312.12730

Reproduced: one weight a class, started at its text feature, scores by scaled cosines; cross-entropy plus the mean
over classes of ``lambda_c * ||w_c - t_c||^2``, where ``lambda_c`` is the mean zero-shot probability of the right
class on the training images (all views); SGD at 0.1 without weight decay. The released command keeps ``lambda_c``
from there; ``adaptive=True`` moves it after every epoch as the released augmented Lagrangian (PHR) does: to
``max(0, lambda_c + rho_c * d_c)`` with ``d_c`` the squared distance and ``rho_c`` that of the epoch before, at first 0.
Different: the authors start at text features as they come, this library at unit vectors times `length`, so that rate
and penalty mean the same for every model; batches and epochs are the library's, theirs 256 and 300. They train on 20
stored views of every image, here on the bank's. Names without images that get
a vector (`extra_names`) have ``lambda_c = 1``, as a class that zero-shot never misses.

Notation: `C` classes, `D` embedding, `R` names with a vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, Host, MethodInfo
from ogenlib.hosts.parts.class_vectors import ClassResiduals
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

LR = 0.1  # released configuration
LENGTH = 9.0  # OpenAI's ViT-B/32: mean length of its text features of the 1000 ImageNet names


@register
class CLAP(ClassResiduals):
    """Class weights ``unit(length * t + x)``, with a penalty on the vectors ``x``.

    Args:
        templates: of the zero-shot weights ``t``.
        extra_names: see `ClassResiduals`.
        adaptive: update the multipliers after every epoch.
        length: of the text features that the probe starts at.

    Attributes:
        multipliers, penalties: ``lambda`` and ``rho``, `(R,)`; set by `prepare`.

    Raises:
        ValueError: a length that is not a positive number, or a name given twice.
    """

    info = MethodInfo(
        "clap",
        "adapter",
        "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
        "https://arxiv.org/abs/2312.12730",
        2024,
        title="CLAP",
    )
    multipliers: Tensor
    penalties: Tensor

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        extra_names: Sequence[str] = (),
        adaptive: bool = False,
        length: float = LENGTH,
    ) -> None:
        if not (length > 0 and math.isfinite(length)):
            raise ValueError(f"length={length}: must be a positive number (about {LENGTH:g} for OpenAI's models)")
        # unit(length * t + x) is unit(t + x / length).
        super().__init__(clip, names, templates, alpha=1 / length, extra_names=extra_names)
        self.adaptive, self.length = adaptive, length
        self.register_buffer("multipliers", torch.zeros(len(self.residual), device=clip.device))
        self.register_buffer("penalties", torch.zeros(len(self.residual), device=clip.device))
        self._prepared = False

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> CLAP:
        """Multipliers from the training images, kept (SGD 0.1, 300 epochs, batches of 256)."""
        return cls(clip, names, **options)

    @torch.no_grad()
    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Set the multipliers from the zero-shot probabilities of the training images."""
        views = data.features.shape[1]
        labels = data.labels.repeat_interleave(views).to(self.device)
        z = F.normalize(data.features.float().flatten(0, 1), dim=-1).to(self.device)
        right = Host.logits(self, z, self.anchor(self.names)).softmax(1).gather(1, labels[:, None])[:, 0]
        count = torch.bincount(labels, minlength=len(self.names))
        means = right.new_zeros(len(self.names)).index_add(0, labels, right) / count.clamp(min=1)
        self.multipliers.fill_(1.0)
        self.multipliers[: len(self.names)] = means
        self.penalties.zero_()
        self._prepared = True

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce`` over the training names, and ``constraint``.

        Raises:
            RuntimeError: `prepare` was not called (`ogenlib.fit` does).
        """
        if not self._prepared:
            raise RuntimeError("no multipliers yet; train with ogenlib.fit, or call prepare(bank, epochs, seed)")
        terms = super().losses(batch, z=z, w=w)
        return {**terms, "constraint": (self.multipliers * self._distances()).mean()}

    def _distances(self) -> Tensor:
        """`(R,)` squared distances from the start."""
        return self.residual.square().sum(-1)

    @torch.no_grad()
    def on_epoch_end(self, epoch: int, total: int) -> None:
        if self.adaptive:
            distances = self._distances()
            self.multipliers.add_(self.penalties * distances).clamp_(min=0)
            self.penalties.copy_(distances)

    def train_settings(self) -> dict[str, Any]:
        """The released optimizer and rate."""
        return {"lr": LR, "optimizer": "sgd", "weight_decay": 0.0}

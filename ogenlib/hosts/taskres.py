"""TaskRes: one free residual a class, added to its zero-shot weight.

"Task Residual for Tuning Vision-Language Models", Yu et al., CVPR 2023. https://arxiv.org/abs/2211.10277

Reproduced: ``t + alpha * x`` with a zero start, alpha 0.5, learning rate 2e-3.
Different: the released code runs Adam with batches of 256 for 100 epochs (200 from 8 shots on) at 2e-3 (2e-4
for ImageNet) and alpha 1.0 for Flowers; here AdamW at 2e-3 with the library's batches and epochs. The "enhanced"
base classifier is not part of it.

Notation: `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ogenlib.hosts.base import DEFAULT_TEMPLATES, MethodInfo
from ogenlib.hosts.parts.class_vectors import ClassResiduals
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

LR = 2e-3  # released code, train_regular.sh


@register
class TaskRes(ClassResiduals):
    """Class weights ``unit(t + alpha * x)`` with one trained vector ``x`` a name.

    Args:
        templates: of the zero-shot weights ``t``.
        extra_names: see `ClassResiduals`.
        alpha: weight of the residual.

    Raises:
        ValueError: an alpha that is not a positive number, or a name given twice.
    """

    info = MethodInfo(
        "taskres",
        "adapter",
        "Task Residual for Tuning Vision-Language Models",
        "https://arxiv.org/abs/2211.10277",
        2023,
        title="TaskRes",
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        extra_names: Sequence[str] = (),
        alpha: float = 0.5,
    ) -> None:
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha}: must be a positive number (the paper's default is 0.5)")
        super().__init__(clip, names, templates, alpha=alpha, extra_names=extra_names)

    def train_settings(self) -> dict[str, Any]:
        """The released learning rate."""
        return {"lr": LR}

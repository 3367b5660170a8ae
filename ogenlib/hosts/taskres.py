"""TaskRes: one free residual a class, added to its zero-shot weight.

"Task Residual for Tuning Vision-Language Models", Yu et al., CVPR 2023. https://arxiv.org/abs/2211.10277

Reproduced: ``t + alpha * x`` with a zero start, alpha 0.5, learning rate 2e-3.
Different: the released code runs Adam with batches of 256 for 100 epochs (200 from 8 shots on) at 2e-3 (2e-4
for ImageNet) and alpha 1.0 for Flowers; here AdamW at 2e-3 with the library's batches and epochs. The "enhanced"
base classifier is not part of it.

Notation: `C` classes, `D` embedding, `R` rows: names with a residual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES, MethodInfo
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

LR = 2e-3  # released code, train_regular.sh


class TaskRes(AnchoredHost):
    """Class weights ``unit(t + alpha * x)`` with one trained row ``x`` a name.

    A name without a row keeps its zero-shot weight: what the rows learn does not carry over to new names.

    Args:
        templates: of the zero-shot weights ``t``.
        alpha: weight of the residual.
        extra_names: names outside the training names that get a row too; images of them must come from
            somewhere (synthesized features), or their rows stay at zero.

    Raises:
        ValueError: an alpha that is not a positive number, or a name given twice.
    """

    info = MethodInfo(
        "taskres", "adapter", "Task Residual for Tuning Vision-Language Models",
        "https://arxiv.org/abs/2211.10277", 2023,
    )  # fmt: skip

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        alpha: float = 0.5,
        extra_names: Sequence[str] = (),
    ) -> None:
        super().__init__(clip, names, templates)
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha}: must be a positive number (the paper's default is 0.5)")
        if isinstance(extra_names, str):
            raise ValueError(f"extra_names={extra_names!r}: pass a list of names")
        self.alpha, self.extra_names = alpha, tuple(extra_names)
        rows = (*self.names, *self.extra_names)
        twice = sorted({n for n in rows if rows.count(n) > 1})
        if twice:
            raise ValueError(f"names and extra_names hold {twice[:5]} more than once; every row needs its own name")
        self.anchor(rows)  # refuses names without text features before any training
        self._row = {name: i for i, name in enumerate(rows)}
        self.residual = nn.Parameter(torch.zeros(len(rows), clip.embed_dim, device=clip.device))

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit rows `(C, D)` for any names."""
        wanted = self.names if names is None else tuple(names)
        none = len(self._row)
        rows = torch.tensor([self._row.get(n, none) for n in wanted], device=self.residual.device)
        x = F.pad(self.residual, (0, 0, 0, 1))[rows]  # the last row, all zero, is of every other name
        return F.normalize(self.anchor(wanted) + self.alpha * x, dim=-1)

    def train_settings(self) -> dict[str, Any]:
        """The released learning rate."""
        return {"lr": LR}

    @classmethod
    def unknown_options(cls, unknown: Sequence[str]) -> dict[str, Any]:
        """Rows for the unknown names: synthesized features train them."""
        return {"extra_names": list(unknown)}

    def config(self) -> dict[str, Any]:
        return {
            "templates": list(self.anchor.templates), "alpha": self.alpha, "extra_names": list(self.extra_names),
        }  # fmt: skip

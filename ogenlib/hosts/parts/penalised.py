"""Full fine-tuning with one more term: what methods that hold the tower or its predictions near the start share.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ogenlib.hosts.base import Batch
from ogenlib.hosts.full_ft import FullFT
from ogenlib.towers import ClipLike


class PenalisedFT(FullFT):
    """`FullFT` and ``weight * penalty``. Subclasses write `penalty` and set `term` and `usual_weight`.

    Args:
        weight: of the term; 0 is full fine-tuning, None for `usual_weight`.
        options: those of `FullFT`.

    Attributes:
        term: its name among the losses.

    Raises:
        ValueError: a weight that is not 0 or more, and what `FullFT` raises.
    """

    term: ClassVar[str]
    usual_weight: ClassVar[float]

    def __init__(
        self, clip: ClipLike, names: Sequence[str], *args: Any, weight: float | None = None, **options: Any
    ) -> None:
        super().__init__(clip, names, *args, **options)
        self.weight = self.usual_weight if weight is None else weight
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise ValueError(f"weight={weight}: must be 0 or more (default {self.usual_weight:g})")

    def penalty(self, batch: Batch, z: Tensor, w: Tensor) -> Tensor:
        """A scalar, not yet weighted, given image features `(B, D)` and class weights `(C, D)`."""
        raise NotImplementedError

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce`` and the term, already weighted; without a weight it is left out."""
        z = self.image_features(batch) if z is None else z
        w = self.class_weights() if w is None else w
        terms = super().losses(batch, z=z, w=w)
        return {**terms, self.term: self.weight * self.penalty(batch, z, w)} if self.weight else terms

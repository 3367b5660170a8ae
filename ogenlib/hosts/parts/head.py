"""A classifier head that starts at the zero-shot weights: what fine-tuning methods with one weight a name share.

Notation: `C` classes, `D` embedding, `R` names with a weight of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES
from ogenlib.hosts.parts.class_vectors import ClassVectors
from ogenlib.towers import ClipLike


class Headed(ClassVectors):
    """Class weights are those of a trained linear head; a name that is not in it keeps its zero-shot weight.

    Args:
        templates: of the zero-shot weights.
        unit_head: weights count at unit length. False leaves them the length that training gives them, as the released
            codes of WiSE-FT and Lipsum-FT do: fine for the training names alone, but among names outside the head a
            long weight wins by its length.
        extra_names: names outside the training names that get a weight too; only synthesized features train it.

    Attributes:
        head: `(R, D)`, training names first; the zero-shot weights at the start.

    Raises:
        ValueError: a name given twice.
    """

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        unit_head: bool = True,
        extra_names: Sequence[str] = (),
    ) -> None:
        super().__init__(clip, names, templates, extra_names)
        self.unit_head = unit_head
        self.head = nn.Parameter(self.anchor(self.vector_names).clone())

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """`(C, D)` for any names, of unit length; without `unit_head` the trained ones at their own length."""
        names = self.names if names is None else tuple(names)
        trained = F.normalize(self.head, dim=-1) if self.unit_head else self.head
        if names == self.names:
            return trained[: len(names)]
        indices, last = self.indices_of(names), len(trained) - 1
        if set(names) <= set(self.vector_names):
            return trained[indices]
        return torch.where(indices[:, None] <= last, trained[indices.clamp(max=last)], self.anchor(names))

"""A classifier head that starts at the zero-shot weights: what fine-tuning methods with one weight a name share.

Notation: `C` classes, `D` embedding, `R` names with a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES
from ogenlib.hosts.parts.rows import NamedRows
from ogenlib.towers import ClipLike


class Headed(NamedRows):
    """Class weights are the rows of one trained matrix; a name without a row keeps its zero-shot weight.

    Args:
        templates: of the zero-shot weights.
        unit_head: rows count at unit length. False leaves them the length that training gives them, as the released
            codes of WiSE-FT and Lipsum-FT do: fine for the training names alone, but among names without a row a long
            row wins by its length.
        extra_names: names outside the training names that get a row too; only synthesized features train it.

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
        self.head = nn.Parameter(self.anchor(self.row_names).clone())

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Rows `(C, D)` for any names: unit rows, or the trained ones at their own length without `unit_head`."""
        wanted = self.names if names is None else tuple(names)
        trained = F.normalize(self.head, dim=-1) if self.unit_head else self.head
        if wanted == self.names:
            return trained[: len(wanted)]
        rows, last = self.rows_of(wanted), len(trained) - 1
        if set(wanted) <= set(self.row_names):
            return trained[rows]
        return torch.where(rows[:, None] <= last, trained[rows.clamp(max=last)], self.anchor(wanted))

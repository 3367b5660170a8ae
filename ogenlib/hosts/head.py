"""A classifier head that starts at the zero-shot weights: what fine-tuning methods with one weight a name share.

Notation: `C` classes, `D` embedding, `R` names with a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike


class Headed(AnchoredHost):
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
        super().__init__(clip, names, templates)
        if isinstance(extra_names, str):
            raise ValueError(f"extra_names={extra_names!r}: pass a list of names")
        self.unit_head, self.extra_names = unit_head, tuple(extra_names)
        rows = (*self.names, *self.extra_names)
        twice = sorted({n for n in rows if rows.count(n) > 1})
        if twice:
            raise ValueError(f"names and extra_names hold {twice[:5]} more than once; every row needs its own name")
        self._row = {name: i for i, name in enumerate(rows)}
        self.head = nn.Parameter(self.anchor(rows).clone())

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Rows `(C, D)` for any names: unit rows, or the trained ones at their own length without `unit_head`."""
        wanted = self.names if names is None else tuple(names)
        trained = F.normalize(self.head, dim=-1) if self.unit_head else self.head
        if wanted == self.names:
            return trained[: len(wanted)]
        rows = torch.tensor([self._row.get(n, -1) for n in wanted], device=self.head.device)
        if bool((rows >= 0).all()):
            return trained[rows]
        return torch.where(rows[:, None] >= 0, trained[rows.clamp(min=0)], self.anchor(wanted))

    def config(self) -> dict[str, Any]:
        return {
            "templates": list(self.anchor.templates), "unit_head": self.unit_head,
            "extra_names": list(self.extra_names),
        }  # fmt: skip

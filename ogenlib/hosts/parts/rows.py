"""What hosts with one trained row a name share: the names of the rows, and TaskRes, CLAP and the cross-modal probe.

Notation: `C` classes, `D` embedding, `R` names with a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike


class NamedRows(AnchoredHost):
    """A host with rows of its own for its names and for `extra_names`; other names have none.

    Attributes:
        row_names: names of the rows, training names first.
        rows_for_unknown: whether names without images get rows where OGEN trains the host.

    Raises:
        ValueError: a name given twice.
    """

    rows_for_unknown: ClassVar[bool] = False

    def __init__(
        self, clip: ClipLike, names: Sequence[str], templates: str | Sequence[str], extra_names: Sequence[str]
    ) -> None:
        super().__init__(clip, names, templates)
        if isinstance(extra_names, str):
            raise ValueError(f"extra_names={extra_names!r}: pass a list of names")
        self.extra_names = tuple(extra_names)
        self.row_names = (*self.names, *self.extra_names)
        twice = sorted({n for n in self.row_names if self.row_names.count(n) > 1})
        if twice:
            raise ValueError(f"names and extra_names hold {twice[:5]} more than once; every row needs its own name")
        self._row = {name: i for i, name in enumerate(self.row_names)}

    def rows_of(self, names: Sequence[str]) -> Tensor:
        """`(C,)`: the row of each name, or the number of rows where it has none."""
        return torch.tensor([self._row.get(n, len(self._row)) for n in names], device=self.device)

    @classmethod
    def unknown_options(cls, unknown: Sequence[str]) -> dict[str, Any]:
        """Rows for the unknown names, with `rows_for_unknown`: synthesized features train them."""
        return {"extra_names": list(unknown)} if cls.rows_for_unknown else {}


class RowHost(NamedRows):
    """Class weights ``unit(t + alpha * x)`` of zero-shot weights ``t``, with one trained row ``x`` a name.

    A linear probe that starts at zero-shot is ``alpha = 1``: its weight is ``t + x``. A name without a row keeps its
    zero-shot weight: what the rows learn does not carry over to new names.

    Args:
        templates: of the zero-shot weights.
        alpha: weight of the rows.
        extra_names: names outside the training names that get a row too; images of them must come from
            somewhere (synthesized features), or their rows stay at zero.

    Attributes:
        residual: the rows ``x``, `(R, D)`; zero at the start.

    Raises:
        ValueError: a name given twice.
    """

    rows_for_unknown: ClassVar[bool] = True

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        alpha: float = 1.0,
        extra_names: Sequence[str] = (),
    ) -> None:
        super().__init__(clip, names, templates, extra_names)
        self.alpha = alpha
        self.anchor(self.row_names)  # refuses names without text features before any training
        self.residual = nn.Parameter(torch.zeros(len(self.row_names), clip.embed_dim, device=clip.device))

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit rows `(C, D)` for any names."""
        wanted = self.names if names is None else tuple(names)
        x = F.pad(self.residual, (0, 0, 0, 1))[self.rows_of(wanted)]  # the last row, all zero, is of every other name
        return F.normalize(self.anchor(wanted) + self.alpha * x, dim=-1)

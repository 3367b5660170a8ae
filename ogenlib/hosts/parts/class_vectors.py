"""Hosts with a trained vector of its own for each name: which names have one, and those whose vector is a residual.

Notation: `C` classes, `D` embedding, `R` names with a vector.
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


class ClassVectors(AnchoredHost):
    """A host with trained vectors for its names and for `extra_names`; other names have none.

    Attributes:
        vector_names: names with a vector, training names first.
        trains_unknown: whether names without images get vectors where OGEN trains the host.

    Raises:
        ValueError: a name given twice.
    """

    trains_unknown: ClassVar[bool] = False

    def __init__(
        self, clip: ClipLike, names: Sequence[str], templates: str | Sequence[str], extra_names: Sequence[str]
    ) -> None:
        super().__init__(clip, names, templates)
        if isinstance(extra_names, str):
            raise ValueError(f"extra_names={extra_names!r}: pass a list of names")
        self.extra_names = tuple(extra_names)
        self.vector_names = (*self.names, *self.extra_names)
        twice = sorted({n for n in self.vector_names if self.vector_names.count(n) > 1})
        if twice:
            raise ValueError(f"names and extra_names hold {twice[:5]} more than once; every vector needs its own name")
        self._index = {name: i for i, name in enumerate(self.vector_names)}

    def indices_of(self, names: Sequence[str]) -> Tensor:
        """`(C,)`: where each name's vector is, or the number of vectors where it has none."""
        return torch.tensor([self._index.get(n, len(self._index)) for n in names], device=self.device)

    @classmethod
    def unknown_options(cls, unknown: Sequence[str]) -> dict[str, Any]:
        """Vectors for the unknown names, with `trains_unknown`: synthesized features train them."""
        return {"extra_names": list(unknown)} if cls.trains_unknown else {}


class ClassResiduals(ClassVectors):
    """Class weights ``unit(t + alpha * x)`` of zero-shot weights ``t``, with one trained vector ``x`` a name.

    A linear probe that starts at zero-shot is ``alpha = 1``: its weight is ``t + x``. A name without a vector keeps
    its zero-shot weight: what the vectors learn does not carry over to new names.

    Args:
        templates: of the zero-shot weights.
        alpha: weight of the vectors.
        extra_names: names outside the training names that get a vector too; images of them must come from
            somewhere (synthesized features), or their vectors stay at zero.

    Attributes:
        residual: the vectors ``x``, `(R, D)`; zero at the start.

    Raises:
        ValueError: a name given twice.
    """

    trains_unknown: ClassVar[bool] = True

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
        self.anchor(self.vector_names)  # refuses names without text features before any training
        self.residual = nn.Parameter(torch.zeros(len(self.vector_names), clip.embed_dim, device=clip.device))

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` for any names."""
        names = self.names if names is None else tuple(names)
        x = F.pad(self.residual, (0, 0, 0, 1))[self.indices_of(names)]  # the last, all zero, is of every other name
        return F.normalize(self.anchor(names) + self.alpha * x, dim=-1)

"""Plain shift: move a neighbour's image by the difference of the class embeddings.

No paper; the simplest extrapolation there is, without parameters. A control for the trained variants.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from torch import Tensor

from ogenlib.generators.base import ClassConditionalGenerator


class ShiftGenerator(ClassConditionalGenerator):
    """h = mean over k of z_k + w_u - w_k; `k=1` shifts single images."""

    variant = "shift"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return (values - keys).mean(dim=1) + query

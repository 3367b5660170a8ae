"""No extrapolation: a map of the class embedding alone.

Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization (OGEN), ICLR 2024,
https://arxiv.org/abs/2401.15914. Reproduced: the control that sees no known class. Not verified: its form in the
paper; here LN(w + MLP(w)), the MLP starting at zero.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ogenlib.generators.base import ClassConditionalGenerator
from ogenlib.generators.layers import two_layer_mlp, unit_layer_norm


class TextOnlyGenerator(ClassConditionalGenerator):
    """h = LN(w_u + MLP(w_u)). Neighbours only lend their residuals; with `spread="none"` those of a class all agree."""

    variant = "text-only"

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.mlp = two_layer_mlp(dim, self.hidden, zero_start=True)
        self.norm = unit_layer_norm(dim)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.norm(query + self.mlp(query))

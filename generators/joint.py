"""Extrapolating jointly: one attention over all neighbours, the default.

Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization (OGEN), ICLR 2024,
https://arxiv.org/abs/2401.15914, Eq. 5. Reproduced: query = unknown class text, keys = neighbour texts, values = one
random real image feature per neighbour. Not verified: the residual from the mean value and the LayerNorm.
Ours: the output projection starts at zero (training starts from the mean of the neighbours).

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ogenlib.generators.attention import CrossAttention
from ogenlib.generators.base import ClassConditionalGenerator
from ogenlib.generators.layers import unit_layer_norm


class JointGenerator(ClassConditionalGenerator):
    """h = LN(mean of z_k + MHCA(q=w_u, K=w_1..K, V=z_1..K))."""

    variant = "joint"

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.attention = CrossAttention(dim, self.heads, self.dropout)
        self.norm = unit_layer_norm(dim)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.norm(values.mean(dim=1) + self.attention(query, keys, values))

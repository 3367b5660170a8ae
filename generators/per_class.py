"""Extrapolating per class: each neighbour is extrapolated on its own, then the results are pooled.

Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization (OGEN), ICLR 2024,
https://arxiv.org/abs/2401.15914. Reproduced: the roles (query = unknown class, key = known class, value = its image
feature), one neighbour at a time. Not verified: the residual, the LayerNorm, and pooling by the mean.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from ogenlib.generators.attention import CrossAttention
from ogenlib.generators.base import ClassConditionalGenerator
from ogenlib.generators.layers import unit_layer_norm


class PerClassGenerator(ClassConditionalGenerator):
    """h = mean over k of LN(z_k + MHCA(q=w_u, K=w_k, V=z_k)).

    The softmax over a single key is 1, so the unknown class enters only through the choice of neighbours: the
    form has no other way to use w_u.
    """

    variant = "per-class"

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.attention = CrossAttention(dim, self.heads, self.dropout)
        self.norm = unit_layer_norm(dim)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        b, k, _ = values.shape
        one_key, one_value = (rearrange(vectors, "b k d -> (b k) 1 d") for vectors in (keys, values))
        mixed = self.attention(repeat(query, "b d -> (b k) d", k=k), one_key, one_value)
        return self.norm(values + rearrange(mixed, "(b k) d -> b k d", b=b)).mean(dim=1)

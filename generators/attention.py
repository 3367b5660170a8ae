"""Multi-head cross-attention for features of any width.

Notation: `B` features, `K` keys, `D` embedding, `H` heads, `d` width of a head.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ogenlib.generators.checks import check_at_least


class CrossAttention(nn.Module):
    """MHCA(q, K, V): each head compares one query with K keys and mixes the K values.

    Heads are `ceil(D / H)` wide, so any width works with any number of heads; where `H` divides `D` this is
    the usual layer (1,050,624 parameters at D=512, as the released code's).

    Args:
        zero_start: the output projection starts at zero, so a residual around the layer starts as the identity.
    """

    def __init__(self, dim: int, heads: int = 4, dropout: float = 0.1, *, zero_start: bool = True) -> None:
        super().__init__()
        check_at_least("heads", heads, 1)
        self.heads = heads
        inner = heads * -(-dim // heads)
        self.to_query, self.to_key, self.to_value = (nn.Linear(dim, inner) for _ in range(3))
        self.out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)  # on the attention weights, as torch's own layer
        for layer in (self.to_query, self.to_key, self.to_value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if zero_start:
            nn.init.zeros_(self.out.weight)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`(B, D)` from a query `(B, D)`, keys and values `(B, K, D)`."""
        q = rearrange(self.to_query(query), "b (h d) -> b h d", h=self.heads)
        k = rearrange(self.to_key(keys), "b k (h d) -> b h k d", h=self.heads)
        v = rearrange(self.to_value(values), "b k (h d) -> b h k d", h=self.heads)
        scores = torch.einsum("bhd,bhkd->bhk", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("bhk,bhkd->bhd", self.dropout(scores.softmax(dim=-1)), v)
        return self.out(rearrange(mixed, "b h d -> b (h d)"))

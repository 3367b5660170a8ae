"""Small layers that several variants share.

Notation: `D` embedding.
"""

from __future__ import annotations

from torch import nn


def unit_layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm whose output starts with length one, like the unit vectors it is regressed to.

    eps is far below torch's 1e-5, because the entries of a unit row have a variance of only 1/D.
    """
    norm = nn.LayerNorm(dim, eps=1e-9)
    nn.init.constant_(norm.weight, dim**-0.5)
    return norm


def two_layer_mlp(dim: int, hidden: int, *, zero_start: bool) -> nn.Sequential:
    """`D -> hidden -> D` with ReLU (the released code's shape); `zero_start`: the output starts at zero."""
    last = nn.Linear(hidden, dim)
    if zero_start:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), last)

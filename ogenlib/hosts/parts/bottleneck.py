"""Two linear maps with a ReLU between them: what adapters and meta networks are made of.

Notation: `I` inputs, `H` hidden width, `O` outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 4  # CLIP-Adapter's released code, clip_adapter.py: a hidden width of D / 4


def linear(n_in: int, n_out: int, *, bias: bool = True, source: torch.Generator) -> nn.Linear:
    """A map `I -> O` started uniformly in ``+-1/sqrt(I)``, as torch starts it, but drawn from `source` alone."""
    with torch.random.fork_rng(devices=[]):  # torch's own start would move the global state
        layer = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_((2 * torch.rand(p.shape, generator=source) - 1) / n_in**0.5)
    return layer


def hidden_width(hidden: int | None, n_in: int) -> int:
    """`hidden`, or a quarter of the inputs; ValueError below 1."""
    if hidden is None:
        return max(1, n_in // REDUCTION)
    if hidden < 1:
        raise ValueError(f"hidden={hidden}: must be 1 or more, or None for a quarter of the embedding")
    return hidden


def bottleneck(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None = None, up_bias: Tensor | None = None
) -> Tensor:
    """``up(relu(down(x)))`` `(..., O)` of `x` `(..., I)`, with `down` `(H, I)` and `up` `(O, H)`."""
    return F.linear(F.linear(x, down, down_bias).relu(), up, up_bias)

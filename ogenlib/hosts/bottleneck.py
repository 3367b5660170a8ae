"""Two linear maps with a ReLU between them: what adapters and meta networks are made of.

Notation: `I` inputs, `H` hidden width, `O` outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(n_in: int, n_out: int, *, bias: bool = True, source: torch.Generator) -> nn.Linear:
    """A map `I -> O` started uniformly in ``+-1/sqrt(I)``, as torch starts it, but drawn from `source` alone."""
    with torch.random.fork_rng(devices=[]):  # torch's own start would move the global state
        made = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_((2 * torch.rand(p.shape, generator=source) - 1) / n_in**0.5)
    return made


def bottleneck(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None = None, up_bias: Tensor | None = None
) -> Tensor:
    """``up(relu(down(x)))`` `(..., O)` of `x` `(..., I)`, with `down` `(H, I)` and `up` `(O, H)`."""
    return F.linear(F.linear(x, down, down_bias).relu(), up, up_bias)


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """`generator`, or one seeded with 0, so that two builds without one are equal."""
    return torch.Generator().manual_seed(0) if generator is None else generator

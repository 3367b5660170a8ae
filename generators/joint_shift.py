"""Joint extrapolation of shifted neighbours.

Ours, not from a paper: with few known classes the attention of the joint form learns little more than the mean of
all images, because the unknown class reaches its output only through the attention weights. Here the neighbours are
first moved by the difference of the class embeddings, so the class is in the output from the first step.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.generators.joint import JointGenerator


class JointShiftGenerator(JointGenerator):
    """h = LN(mean of z_k + g (w_u - w_k) + MHCA(q=w_u, K=w_1..K, V=z_1..K)), g a learned number that starts at 1."""

    variant = "joint-shift"

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        shifted = values.mean(dim=1) + self.gain * (query - keys.mean(dim=1))
        return self.norm(shifted + self.attention(query, keys, values))

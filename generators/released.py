"""The generator of the released code, apple/ml-ogen.

Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization (OGEN), ICLR 2024,
https://arxiv.org/abs/2401.15914. From the released code: unit(MLP(Q) + MHA(Q, K, V)) without residual or LayerNorm;
values mean + uniform · std of each neighbour; neighbours ranked once by mean image features, self excluded, no
split into known and unknown classes; the two regression branches: own class from K neighbours, and each neighbour
from the single key and image of the own class. New classes are synthesized from a single key and image.
Different: uniform numbers are drawn for each feature (there: once for a whole batch), AdamW in fp32 (there: SGD in
fp16), and the mean and std, which the released code loads from files it does not ship, are those of the given features.
Left out: the cross-entropy terms, which need a classifier (`ogenlib.ogen.branches` has them). The forward pass and
the two regression branches were compared with the released code's, on equal weights, in value and gradient
(docs/ogen.md). Nothing here is verified against the paper's own form.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from ogenlib.generators.attention import CrossAttention
from ogenlib.generators.base import ClassConditionalGenerator
from ogenlib.generators.checks import unit
from ogenlib.generators.layers import two_layer_mlp


class ReleasedGenerator(ClassConditionalGenerator):
    """h = unit(MLP(w_u) + MHA(q=w_u, K=w_1..K, V=v_1..K)).

    With one key the softmax is 1 and w_u enters through the MLP alone. `spread="residual"` gives it the class means
    of all K neighbours; `spread="none"` one random image of one random neighbour, as the released code does for
    new classes.
    """

    variant = "released"
    neighbours_by = "image"
    held_out = 0.0

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.attention = CrossAttention(dim, self.heads, self.dropout, zero_start=False)
        self.mlp = two_layer_mlp(dim, self.hidden, zero_start=False)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return unit(self.mlp(query) + self.attention(query, keys, values))

    def training_values(self, neighbours: Tensor, draws: torch.Generator) -> Tensor:
        """mean + uniform · std of each neighbour, `(B, K, D)`: one-sided noise, as released."""
        known = self.require_known()
        uniform = torch.rand(*neighbours.shape, self.dim, generator=draws).to(neighbours.device)
        return known.means[neighbours] + uniform * known.stds[neighbours]

    def training_loss(self, query: Tensor, keys: Tensor, values: Tensor, target: Tensor) -> Tensor:
        """Branch U (own class from its neighbours) plus branch K (each neighbour from the own class)."""
        k = keys.shape[1]
        own_key, own_image = (repeat(vectors, "b d -> (b k) 1 d", k=k) for vectors in (query, target))
        back = self(rearrange(keys, "b k d -> (b k) d"), own_key, own_image)
        branch_k = (back - rearrange(values, "b k d -> (b k) d")).square().sum(dim=-1).mean()
        return super().training_loss(query, keys, values, target) + branch_k

    @property
    def n_random(self) -> int:
        return 2

    def sample(self, query: Tensor, known_embeddings: Tensor, neighbours: Tensor, uniform: Tensor) -> Tensor:
        column = (uniform[:, :1] * self.k).long().clamp(max=self.k - 1)
        one = neighbours.gather(1, column)
        return self(query, known_embeddings[one], self.require_known().images(one, uniform[:, 1:]))

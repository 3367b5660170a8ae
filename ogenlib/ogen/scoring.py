"""How class weights and image rows are put together where OGEN scores some names otherwise than the host does.

Two towers: names without images meet the features of the frozen image tower, the others those of a host that changed
it. Both kinds of features lie side by side in one row, `(B, 2 D)`; a class weight `(2 D,)` is zero where it meets the
features that its name is not scored on, so that a product of the two is a cosine as ever.

Notation: `B` images, `S` synthesized rows, `C` names, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mixed(of_host: Tensor, zero_shot: Tensor, other: Tensor, share: float) -> Tensor:
    """The host's rows `(..., C, D)`, where `other` `(C,)` unit rows with `share` of the zero-shot ones."""
    return torch.where(other[:, None], F.normalize(share * zero_shot + (1 - share) * of_host, dim=-1), of_host)


def two_sided(rows: Tensor, other: Tensor) -> Tensor:
    """Class weights `(C, 2 D)` of rows `(C, D)`: those of `other` `(C,)` in the second half, for the frozen tower."""
    return torch.cat([rows.masked_fill(other[:, None], 0), rows.masked_fill(~other[:, None], 0)], dim=-1)


def with_made(z: Tensor, made: Tensor | None) -> Tensor:
    """Rows of images `(B, D)` or `(B, 2 D)` with synthesized ones `(S, D)` below, which stand for either tower's."""
    if made is None:
        return z
    return torch.cat([z, made.to(z.dtype).repeat(1, z.shape[1] // made.shape[1])])


def cross_entropy_within(logits: Tensor, labels: Tensor, known: int) -> Tensor:
    """Cross-entropy of known rows over known names and of unknown rows over unknown names, mean over all rows."""
    other = labels >= known
    side = torch.arange(logits.shape[1], device=logits.device) >= known
    return F.cross_entropy(logits.masked_fill(side[None] != other[:, None], -torch.inf), labels)

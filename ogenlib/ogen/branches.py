"""The three branches of the released code: what is synthesized for each image of a batch.

apple/ml-ogen, of "Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization", Zang et al.,
ICLR 2024, https://arxiv.org/abs/2401.15914. Reproduced: for an image of a class, features of that class from its
neighbours' means and one-sided noise, of the neighbours from the image, and of the new names nearest to the class from
the image; regression of the first two; cross-entropy of the first two among the known names, and of the third among
the new ones alone. Class weights are the host's of the step. Those that features are made from get no gradient, but
for the new names'; the features themselves do, so the generator also learns from the cross-entropies.

Notation: `B` images, `K` neighbours, `J` new names an image, `C` names, known ones first, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ogenlib.generators import ClassConditionalGenerator

Logits = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Branches:
    """What is synthesized for a batch; `labels` are into the names.

    Attributes:
        own, own_labels: `(B, D)` and `(B,)`, the image's class.
        near, near_labels: `(B K, D)` and `(B K,)`, its neighbours.
        new, new_labels: `(B J, D)` and `(B J,)`; `J` is 0 where no names are new.
        regression: the squared distance of `own` to the images and of `near` to what stood for the neighbours.
    """

    own: Tensor
    own_labels: Tensor
    near: Tensor
    near_labels: Tensor
    new: Tensor
    new_labels: Tensor
    regression: Tensor


def image_neighbours(means: Tensor, k: int) -> Tensor:
    """The `(C, K)` known classes whose mean images `(C, D)` have the largest product with a class's own, nearest first.

    The means are taken as long as they are: a class of images that are alike is nearer to all.
    """
    return (means @ means.T).fill_diagonal_(-torch.inf).topk(k).indices


def synthesize_branches(
    generator: ClassConditionalGenerator,
    weights: Tensor,
    z: Tensor,
    labels: Tensor,
    neighbours: Tensor,
    noise: Tensor,
    target_noise: Tensor,
) -> Branches:
    """Features for every image of a batch.

    Args:
        weights: class weights `(C, D)`, or `(B, C, D)` where they depend on the image.
        z, labels: of the images, `(B, D)` and `(B,)`; without gradient.
        neighbours: `(C, K)` known classes of each known class.
        noise: `(D,)` in [0, 1): what stands for a neighbour is the mean of its images plus this share of their std.
        target_noise: the same for what `near` is regressed to.
    """
    known = generator.require_known()
    near = neighbours[labels]
    own_weight, near_weights = (_picked(weights.detach(), c) for c in (labels[:, None], near))
    values, targets = (known.means[near] + share * known.stds[near] for share in (noise, target_noise))
    own = generator(own_weight[:, 0], near_weights, values)
    back = _from_image(generator, near_weights, own_weight, z)
    regression = _squared(own - z) + _squared(back - rearrange(targets, "b k d -> (b k) d"))
    n_known = len(neighbours)
    others = weights[..., n_known:, :]
    similarity = (others.detach() @ own_weight.mT).squeeze(-1)
    chosen = similarity.topk(min(neighbours.shape[1], others.shape[-2])).indices
    new = _from_image(generator, _picked(others, chosen), own_weight, z)
    return Branches(own, labels, back, near.flatten(), new, n_known + chosen.flatten(), regression)


def branch_terms(
    made: Branches, weights: Tensor, n_known: int, logits: Logits, shares: Sequence[float]
) -> dict[str, Tensor]:
    """Weighted cross-entropy of each branch among the names of its own side; those without a weight are left out.

    Args:
        weights: of all names, `(C, D)` or `(B, C, D)`.
        logits: of features `(R, D)` and weights `(C, D)` or `(R, C, D)`.
        shares: the weights of own, near and new.
    """
    known, others = slice(None, n_known), slice(n_known, None)
    rows = {
        "synthesized_own": (made.own, made.own_labels, known),
        "synthesized_near": (made.near, made.near_labels, known),
        "synthesized_new": (made.new, made.new_labels - n_known, others),
    }
    terms = {}
    for share, (name, (features, labels, side)) in zip(shares, rows.items(), strict=True):
        if share and len(features):
            of_row = weights if weights.ndim == 2 else weights.repeat_interleave(len(features) // len(weights), dim=0)
            terms[name] = share * F.cross_entropy(logits(features, of_row)[:, side], labels)
    return terms


def _squared(rows: Tensor) -> Tensor:
    """Mean squared length of `(R, D)`."""
    return rows.square().sum(dim=-1).mean()


def _picked(weights: Tensor, columns: Tensor) -> Tensor:
    """Weights `(B, J, D)` of names `(B, J)`."""
    if weights.ndim == 2:
        return weights[columns]
    return weights.gather(1, columns[..., None].expand(-1, -1, weights.shape[-1]))


def _from_image(generator: ClassConditionalGenerator, queries: Tensor, key: Tensor, z: Tensor) -> Tensor:
    """Features `(B J, D)` of classes `(B, J, D)`, each from the image's class `(B, 1, D)` and the image alone."""
    count = queries.shape[1]
    if not count:
        return z[:0]
    one_key, image = repeat(key, "b 1 d -> (b j) 1 d", j=count), repeat(z, "b d -> (b j) 1 d", j=count)
    return generator(rearrange(queries, "b j d -> (b j) d"), one_key, image)

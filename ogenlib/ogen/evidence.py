"""What the known classes' images say of any class, as an addition to class weights.

The discriminant of `ogenlib.generators.density` is linear in the image features, so it needs no place of its own at
test time: its weights, and its bias along a direction on which all features have nearly the same share, are added to
the class weights that the host's logits multiply features with. Weight and shrinkage are chosen by episodes
within the known classes (`ogenlib.generators.episodes`).

Notation: `N` images, `V` views, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.generators.density import ClassDensities, Discriminant, NoSpread, every_view, fit_densities
from ogenlib.generators.episodes import EvidenceSettings, choose_evidence

RIDGE = 1e-3  # of the covariance whose inverse the constant direction needs, as a share of its trace over D


@dataclass(frozen=True)
class Evidence:
    """Densities of the names a host has images of, ready to be added to class weights.

    Attributes:
        names: those with images.
        densities: of their images' features.
        constant: `(D,)`, its product with image features is nearly 1 for all of them.
        factor: of the discriminant in class weights: logits are cosines times the model's scale, exponentiated.
        zero_shot: share of the zero-shot weights in what the discriminant is added to; the rest are the host's.
        temperature: what all logits are divided by, so that they spread about as the host's do.
        chosen: what the episodes chose.
    """

    names: tuple[str, ...]
    densities: ClassDensities
    constant: Tensor
    factor: float
    zero_shot: float
    temperature: float
    chosen: EvidenceSettings

    def added(self, weights: Tensor, names: Sequence[str], embeddings: Tensor) -> Tensor:
        """Class weights `(C, D)` or `(B, C, D)` of a host, with the evidence in them.

        Args:
            weights: where features are twice as wide, those of the frozen tower come second, and the evidence is of
                them.
            embeddings: `(C, D)` zero-shot weights of the names.
        """
        missing = weights.shape[-1] - embeddings.shape[-1]
        beside = F.pad(self.beside(names, embeddings), (missing, 0))
        return (1 - self.zero_shot) / self.temperature * weights + beside.to(weights)

    def beside(self, names: Sequence[str], embeddings: Tensor) -> Tensor:
        """`(C, D)`, what is added to the host's part of class weights: zero-shot's share, and the evidence."""
        return (self.zero_shot * embeddings + self.vectors(names, embeddings)) / self.temperature

    def vectors(self, names: Sequence[str], embeddings: Tensor) -> Tensor:
        """What class weights of any names `(C, D)` become more by.

        Args:
            embeddings: `(C, D)` zero-shot weights of the names.
        """
        places = {name: place for place, name in enumerate(self.names)}
        means = self.densities.predict(embeddings)
        known = [index for index, name in enumerate(names) if name in places]
        means[known] = self.densities.means[[places[names[index]] for index in known]]
        found, middle = self.densities.discriminant(means), self._middle
        return self.factor * (found.weights - middle.weights + (found.bias - middle.bias)[:, None] * self.constant)

    def left_out(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What evidence that had not seen a training image would add to cosines with it, in its first view.

        Args:
            features: `(N, V, D)` unit vectors of the training images; labels: `(N,)`, indices into `names`.

        Returns:
            What `(N, C)` to add to the cosines that have the evidence in them already, for the image is left out of
            the mean of its own class; and what `(N, C)` to add to zero-shot cosines, divided by the temperature, if
            each class had no images.
        """
        z, means = features[:, 0], self.densities.means
        without = means - self.densities.errors()
        count = torch.bincount(labels, minlength=len(means)).to(means)[labels, None]
        others = (count * means[labels] - features.mean(dim=1)) / (count - 1).clamp(min=1)
        own = self.densities.discriminant(torch.where(count > 1, others, without[labels]))
        known = self.densities.discriminant(means)
        change = ((own.weights - known.weights[labels]) * z).sum(dim=1) + own.bias - known.bias[labels]
        unknown = self.densities.discriminant(without)(z) - (z @ self._middle.weights + self._middle.bias)[:, None]
        corrected = F.one_hot(labels, len(means)).to(z) * change[:, None]
        scale = self.factor / self.temperature
        return scale * corrected, scale * unknown

    @cached_property
    def _middle(self) -> Discriminant:
        """The mean over the known classes, taken away from all: it says nothing of any class, and is large."""
        found = self.densities.discriminant(self.densities.means)
        return Discriminant(found.weights.mean(dim=0), found.bias.mean())


def fit_evidence(
    features: Tensor,
    labels: Tensor,
    names: tuple[str, ...],
    embeddings: Tensor,
    logit_scale: float,
    shares: tuple[float, float],
    seed: int,
) -> Evidence | None:
    """Evidence from the training images; None where the episodes find that it does not help, or for too few images.

    Args:
        features: `(N, V, D)` of the frozen image tower; labels: `(N,)`, indices into `names`.
        embeddings: `(C, D)` zero-shot weights of the names.
        logit_scale: exponentiated.
        shares: of the weight that the episodes choose beside zero-shot (a host has learned from the same images), and
            of zero-shot weights in those of the host.
        seed: of the episodes.
    """
    images = F.normalize(features.float(), dim=-1)
    try:
        chosen = choose_evidence(images, labels, embeddings, logit_scale, torch.Generator().manual_seed(seed))
    except NoSpread:  # in an episode a class may be left with one image
        return None
    if not chosen.weight:
        return None
    densities = fit_densities(images, labels, embeddings, shrinkage=chosen.shrinkage)
    factor = shares[0] * chosen.weight * chosen.scale / logit_scale
    constant = constant_direction(every_view(images, labels)[0])
    temperature = 1 + shares[0] * chosen.weight
    return Evidence(names, densities, constant, factor, shares[1], temperature, chosen)


def constant_direction(features: Tensor) -> Tensor:
    """`(D,)`, whose product with features `(N, D)` is 1 on average and varies least."""
    z = features.double()
    mean = z.mean(dim=0)
    spread = (z - mean).T @ (z - mean) / len(z)
    level = spread.trace() / len(spread) + torch.finfo(features.dtype).eps
    along = torch.linalg.solve(spread + RIDGE * level * torch.eye(len(spread)).to(spread), mean)
    return (along / (mean @ along)).to(features.dtype)

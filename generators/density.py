"""Gaussian densities of the image features of classes, of names with images and of names without.

A name with images has their mean. A name without has the mean that a closed-form map predicts from its embedding
(`ogenlib.generators.mean_map`). All have one covariance, that of the known images around their means, shrunk towards a
multiple of the identity (the target of Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
matrices", 2004, with a given share in place of the estimated one). Everything is closed form, and the discriminant is
linear in the features.

Not from the OGEN paper, which learns a generator of single features; its place beside that generator is in
docs/ogen.md.

Notation: `N` images, `V` views, `C` known classes, `U` names without images, `D` embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ogenlib.generators.checks import check_rows, unit
from ogenlib.generators.known import check_labels
from ogenlib.generators.mean_map import MeanMap, fit_mean_map, left_out_errors

SHRINKAGE = 0.3  # the best of a few on the tasks that settings are chosen on (docs/ogen.md)


class NoSpread(ValueError):
    """Images that all lie on the means of their classes say nothing of how classes spread."""


@dataclass(frozen=True)
class Discriminant:
    """``z @ weights.T + bias``: the log densities of features, less what is the same for all classes.

    weights `(C, D)`, bias `(C,)`.
    """

    weights: Tensor
    bias: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return z @ self.weights.to(z.dtype).T + self.bias.to(z.dtype)


@dataclass(frozen=True)
class ClassDensities:
    """Densities of the known classes, and of any name by its embedding.

    Attributes:
        means: `(C, D)` of the known classes' images; not of unit length.
        spread: `(D, D)`, covariance of the images around their means, as it is.
        shrinkage: share of the identity in `covariance`.
        mean_map: from embeddings to means.
    """

    means: Tensor
    spread: Tensor
    shrinkage: float
    mean_map: MeanMap

    @cached_property
    def covariance(self) -> Tensor:
        """`(D, D)`, shrunk."""
        level, identity = self.spread.trace() / len(self.spread), torch.eye(len(self.spread)).to(self.spread)
        return (1 - self.shrinkage) * self.spread + self.shrinkage * level * identity

    def predict(self, embeddings: Tensor) -> Tensor:
        """Means `(U, D)` of names by their embeddings `(U, D)`, as if none had images."""
        return self.mean_map(embeddings)

    def errors(self) -> Tensor:
        """`(C, D)`: the known means, less what would be predicted without each one's own images."""
        return left_out_errors(self.mean_map, self.means)

    def discriminant(self, means: Tensor) -> Discriminant:
        """Of classes with these means `(C, D)`: the logarithm of each one's density, up to one number for all."""
        weights = torch.linalg.solve(self.covariance.double(), means.double().T).T
        bias = -0.5 * (means.double() * weights).sum(dim=1)
        return Discriminant(weights.to(means.dtype), bias.to(means.dtype))

    def draw(self, means: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
        """Unit features `(len(means) * per_class, D)`, those of a class one after another."""
        factor = torch.linalg.cholesky(self.covariance.double()).to(means)
        noise = torch.randn(len(means) * per_class, means.shape[1], generator=generator).to(means)
        return unit(means.repeat_interleave(per_class, dim=0) + noise @ factor.T)


def fit_densities(
    features: Tensor,
    labels: Tensor,
    embeddings: Tensor,
    *,
    ridge: float | None = None,
    slope: float | None = None,
    shrinkage: float = SHRINKAGE,
) -> ClassDensities:
    """Densities from images of the known classes.

    Args:
        features: `(N, D)`, or `(N, V, D)` with several views of an image, which all count.
        labels: `(N,)`, indices into `embeddings`.
        embeddings: `(C, D)` of the known names.
        ridge, slope: of `fit_mean_map`; None for those of the smallest leave-one-out error.
        shrinkage: share of the identity in the covariance, above 0 (without images for every dimension it is singular).

    Raises:
        ValueError: shapes, labels or settings that do not fit, or fewer than two classes.
        NoSpread: images that all lie on the means of their classes.
    """
    check_rows("embeddings", embeddings)
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}: must be above 0 and at most 1")
    if len(embeddings) < 2:
        raise ValueError("densities need two known classes or more: with one there is nothing to tell apart")
    views, classes = every_view(features, labels)
    check_rows("features", views, embeddings.shape[1])
    check_labels(classes, len(views), len(embeddings))
    known, x = unit(embeddings), unit(views)
    count = torch.bincount(classes, minlength=len(known))[:, None]
    means = torch.zeros(len(known), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, classes, x) / count
    residuals = x - means[classes]
    spread = residuals.T @ residuals / len(x)
    level = spread.trace() / len(spread)
    if level < torch.finfo(x.dtype).eps ** 1.5:  # what rounding leaves of equal features
        raise NoSpread("every known class has a single image in a single view, which says nothing of their spread")
    return ClassDensities(means, spread, shrinkage, fit_mean_map(means, known, ridge=ridge, slope=slope))


def every_view(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features `(N, D)` or `(N, V, D)` as `(N V, D)`, one a view, and the labels of the views."""
    if features.ndim == 2:
        return features, labels
    if features.ndim != 3:
        raise ValueError(f"features has shape {tuple(features.shape)}; (N, D) or (N, V, D) is needed")
    return features.flatten(0, 1), labels.repeat_interleave(features.shape[1])

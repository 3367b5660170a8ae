"""A closed-form map from the embeddings of names to the means of their images.

Embeddings and image means live in one space, where CLIP has put an image near its name: what differs between two names
differs between their images too, in the same directions. The map starts there, with a multiple (`slope`) of the
difference between a name and the mean of all names, and ridge regression on the known classes adds what the start
leaves over. Ridge regression alone knows only the directions in which a few dozen known names differ, and predicts the
mean of all for what lies outside them. Slope and ridge are those of the smallest leave-one-out error, which has a
closed form.

Related: ridge regression from names to visual prototypes in generalized zero-shot learning, "An embarrassingly simple
approach to zero-shot learning", Romera-Paredes & Torr, ICML 2015. The start, and how both numbers are chosen, are ours;
docs/generators.md has what they gain.

Notation: `C` known classes, `U` names without images, `D` embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ogenlib.generators.checks import check_rows, unit

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SLOPES = (0.0, 0.5, 1.0, 1.5, 2.0)  # times the slope of least squares


@dataclass(frozen=True)
class MeanMap:
    """Image means by embeddings.

    Attributes:
        embeddings: `(C, D)` unit vectors, of the known names.
        level: `(D,)`, the mean of the known means.
        coefficients: `(C, D)`, of the ridge regression in its dual form.
        slope: how far image means move with the embeddings; 0 is ridge regression alone.
        ridge: of the regression, in units of the mean squared length of the centred embeddings.
    """

    embeddings: Tensor
    level: Tensor
    coefficients: Tensor
    slope: float
    ridge: float

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Means `(U, D)` of names by their embeddings `(U, D)`, as if none had images."""
        check_rows("embeddings", embeddings, self.embeddings.shape[1])
        centre = self.embeddings.mean(dim=0)
        offsets = unit(embeddings).to(self.level) - centre
        kernel = offsets @ (self.embeddings - centre).T
        return self.level + self.slope * offsets + kernel @ self.coefficients


def fit_mean_map(
    means: Tensor, embeddings: Tensor, *, ridge: float | None = None, slope: float | None = None
) -> MeanMap:
    """The map of these classes.

    Args:
        means: `(C, D)` of the images of each class.
        embeddings: `(C, D)` of their names.
        ridge, slope: None for those of the smallest leave-one-out error, among `RIDGES` and, times the slope of least
            squares, `SLOPES`.

    Raises:
        ValueError: a setting out of range.
    """
    if ridge is not None and not 0 < ridge < float("inf"):
        raise ValueError(f"ridge={ridge}: must be a positive number")
    if slope is not None and not abs(slope) < float("inf"):
        raise ValueError(f"slope={slope}: must be a finite number")
    known = unit(embeddings).to(means)
    level = means.mean(dim=0)
    x, y = (known - known.mean(dim=0)).double(), (means - level).double()
    kernel = x @ x.T
    straight = float((x * y).sum() / x.square().sum().clamp(min=torch.finfo(x.dtype).tiny))
    slopes = [multiple * straight for multiple in SLOPES] if slope is None else [slope]
    tried = []
    for one in RIDGES if ridge is None else (ridge,):
        smoother, inverse = _smoother(kernel, one)
        of_y, of_x = _left_out(smoother, y), _left_out(smoother, x)
        tried += [((of_y - s * of_x).square().sum(), one, s, inverse) for s in slopes]
    _, chosen, s, inverse = min(tried, key=lambda trial: float(trial[0]))
    return MeanMap(known, level, (inverse @ (y - s * x)).to(means.dtype), s, chosen)


def left_out_errors(of: MeanMap, means: Tensor) -> Tensor:
    """`(C, D)`: each known class's mean, less what the map would predict had it been fitted without that class."""
    x = (of.embeddings - of.embeddings.mean(dim=0)).double()
    smoother, _ = _smoother(x @ x.T, of.ridge)
    return _left_out(smoother, (means - of.level).double() - of.slope * x).to(means.dtype)


def _smoother(kernel: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """What fitted values are of the targets, `(C, C)`, and what coefficients are."""
    penalty = ridge * kernel.diagonal().mean().clamp(min=torch.finfo(kernel.dtype).tiny)
    inverse = torch.linalg.inv(kernel + penalty * torch.eye(len(kernel)).to(kernel))
    return kernel @ inverse, inverse


def _left_out(smoother: Tensor, targets: Tensor) -> Tensor:
    """Leave-one-out residuals of centred targets; the mean that was taken away is fitted too, hence 1 / C."""
    kept = 1 - smoother.diagonal() - 1 / len(smoother)
    return (targets - smoother @ targets) / kept[:, None]

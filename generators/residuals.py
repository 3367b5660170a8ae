"""Clouds as wide as real ones: synthesized means with the residuals of real images.

A generator trained by regression learns the mean of a class. What real images add to their mean, `x - mu`, is
much alike from class to class, so residuals of the nearest known classes are put around each synthesized mean.
Not from the paper, which synthesizes from one random image per neighbour and says nothing about the spread.

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ogenlib.generators.checks import unit
from ogenlib.generators.known import KnownClasses

N_RANDOM = 2  # uniform numbers a residual takes: one for the class, one for the image


def draw_residuals(known: KnownClasses, neighbours: Tensor, uniform: Tensor) -> Tensor:
    """One residual `(B, D)` per row, `x - mean` enlarged by sqrt(n / (n - 1)).

    The class is uniform among the neighbours that have two images or more, or among all such known classes
    where no neighbour has; then the image is uniform in the class.

    Args:
        neighbours: indices `(B, K)` of known classes.
        uniform: random numbers `(B, 2)` in [0, 1).

    Raises:
        ValueError: every known class has a single image, so nothing is known about spread.
    """
    several = known.counts > 1
    anywhere = several.nonzero()[:, 0]
    if not len(anywhere):
        raise ValueError(
            "spread='residual' needs a known class with two images or more and each has one; "
            "pass spread='none', or more images or views per class"
        )
    usable = several[neighbours]
    n_usable = usable.sum(dim=-1)
    chosen = torch.minimum((uniform[:, 0] * n_usable).long(), (n_usable - 1).clamp(min=0))
    column = (usable & (usable.cumsum(dim=-1) - 1 == chosen[:, None])).int().argmax(dim=-1)
    near = neighbours.gather(1, column[:, None])[:, 0]
    far = anywhere[(uniform[:, 0] * len(anywhere)).long().clamp(max=len(anywhere) - 1)]
    classes = torch.where(n_usable > 0, near, far)
    images = known.images(classes, uniform[:, 1])
    return known.enlarge[classes, None] * (images - known.means[classes])


def around_mean(known: KnownClasses, means: Tensor, neighbours: Tensor, residuals: Tensor) -> Tensor:
    """Unit vectors `unit(length * unit(mean) + residual)`, `(B, D)`.

    `length` is the neighbours' average length of a class mean. Regression to noisy targets shrinks or inflates
    what it predicts; with the length of a real mean the share of mean and residual is that of real images.
    """
    length = known.lengths[neighbours].mean(dim=-1, keepdim=True)
    return unit(length * unit(means) + residuals)

"""What speaks for an image being of a known class, as columns that a boundary weighs.

Three columns, all cosines, all larger for known images:

* text: soft maximum of the similarities to the class names. A soft maximum, `t * logsumexp(s / t)`, counts several
  near names (breeds of dogs) as more evidence than one;
* rival, negative: the soft maximum over names of other classes where such are given, else the mean similarity to the
  class names, which says how much of the similarity any image of this kind has;
* image, with images of the classes: soft maximum of the similarities to the class means, all seen from the mean of the
  class means. From there the direction that all of CLIP's image features share, and with it the gap between images
  and texts, is gone.

Notation: `B` images, `N` fitted images, `C` classes, `U` other names, `D` embedding, `E` columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1.0  # of the map from names to class means; 0.3 to 3 made no difference on the validation tasks


def soft_max(similarities: Tensor, temperature: float) -> Tensor:
    """`(B,)`: `t * logsumexp(s / t)` over the columns of `(B, C)`; the maximum as t goes to 0."""
    return temperature * torch.logsumexp(similarities / temperature, dim=1)


@dataclass(frozen=True)
class Means:
    """Class means of image features, seen from their own mean.

    Attributes:
        centre: `(D,)`, mean of the class means.
        directions: `(C, D)`, unit vectors (zero where a class mean is the centre).
    """

    centre: Tensor
    directions: Tensor

    @classmethod
    def of(cls, pieces: Iterable[tuple[Tensor, Tensor]], names: Tensor) -> Means:
        """From pieces of unit features `(N, D)` with labels `(N,)`, and the class names' embeddings `(C, D)`.

        A class without images gets a mean too, by ridge regression from the names of those that have some: with
        none at all its images would all look unknown.
        """
        total, number = torch.zeros_like(names), torch.zeros(len(names), dtype=torch.long, device=names.device)
        for z, y in pieces:
            total.index_add_(0, y, z)
            number += torch.bincount(y, minlength=len(names))
        count = number.to(names.dtype)
        seen = count > 0
        means = total / count.clamp(min=1)[:, None]
        centre = means[seen].mean(dim=0)
        offsets = means - centre
        if not bool(seen.all()):
            offsets[~seen] = from_names(names[seen], offsets[seen], names[~seen])
        return cls(centre, F.normalize(offsets, dim=-1))


def from_names(names: Tensor, targets: Tensor, new: Tensor) -> Tensor:
    """Ridge regression `(U, D)` from names `(C, D)` to targets `(C, D)` of mean zero, at `new` `(U, D)`."""
    middle = names.mean(dim=0)
    x, at = names - middle, new - middle
    gram = x @ x.T + RIDGE * torch.eye(len(x), dtype=x.dtype, device=x.device)
    return at @ (x.T @ torch.linalg.solve(gram, targets))


@dataclass(frozen=True)
class Evidence:
    """The columns for one set of classes.

    Attributes:
        classes: `(C, D)` unit vectors; `others`: `(U, D)` or None; `means` of images, or None.
        temperature: of the soft maximum over names; `image_temperature`: over class means.
    """

    classes: Tensor
    others: Tensor | None
    means: Means | None
    temperature: float
    image_temperature: float

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "rival") if self.means is None else ("text", "rival", "image")

    def __call__(self, z: Tensor) -> Tensor:
        """Columns `(B, E)` of unit features `(B, D)`."""
        similarity = z @ self.classes.T
        rival = similarity.mean(dim=1) if self.others is None else soft_max(z @ self.others.T, self.temperature)
        columns = [soft_max(similarity, self.temperature), -rival]
        if self.means is not None:
            seen = F.normalize(z - self.means.centre, dim=-1) @ self.means.directions.T
            columns.append(soft_max(seen, self.image_temperature))
        return torch.stack(columns, dim=1)

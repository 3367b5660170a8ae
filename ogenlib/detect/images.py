"""Images of the known classes that a detector is fitted to: kept as they were given, seen as unit features in pieces.

Notation: `N` given images, `K` of them of known classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_ood.utils import is_known
from torch import Tensor

from ogenlib.detect.base import check_finite, check_rows

ROWS = 4096  # a piece: 8 MB of fp32 at 512 dimensions


@dataclass(frozen=True)
class Images:
    """Features, and which of them are of known classes.

    Attributes:
        rows: `(N, D)` of any length, dtype and device; the caller's own tensor, not a copy.
        places: `(K,)` indices of the images of known classes.
        labels: `(K,)` int64, their classes. Pieces are on the device of the labels.
    """

    rows: Tensor
    places: Tensor
    labels: Tensor

    @classmethod
    def known(cls, x: Any, y: Any, classes: int, dim: int, device: torch.device) -> Images:
        """The images of known classes among features `(N, D)` and labels `(N,)`, below 0 for all others.

        Raises:
            TypeError: not tensors.
            ValueError: shapes or labels that do not fit, numbers that are not finite, or no image of a known class.
        """
        if not isinstance(y, Tensor):
            raise TypeError(f"y is a {type(y).__name__}; pass a tensor of class numbers (N,)")
        if y.ndim != 1 or not isinstance(x, Tensor) or x.ndim != 2 or len(x) != len(y):
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"features {shape} and labels {tuple(y.shape)} do not fit; pass (N, {dim}) and (N,)")
        if y.is_floating_point() or y.dtype == torch.bool:
            raise ValueError(f"labels are {y.dtype}; whole numbers are needed, such as y.long()")
        places = is_known(y).nonzero()[:, 0]
        if not len(places):
            raise ValueError(f"none of the {len(y)} rows belongs to a known class (labels below 0 are unknown)")
        labels = y[places].long()
        if int(labels.max()) >= classes:
            raise ValueError(
                f"label {int(labels.max())} has no class: there are {classes} class embeddings, so labels are 0 to "
                f"{classes - 1} (below 0: unknown, ignored)"
            )
        check_rows("features", x, dim)
        images = cls(x.detach(), places.to(device), labels.to(device))
        check_finite("features", (features for features, _ in images._read(None)))
        return images

    def pieces(self, chosen: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Unit features `(<= ROWS, D)` and labels of images of known classes, or of those in the mask `chosen` `(K,)`.

        At least one piece, which may be empty.
        """
        for features, labels in self._read(chosen):
            yield F.normalize(features, dim=-1), labels

    def units(self, chosen: Tensor) -> Iterator[Tensor]:
        """The features of `pieces`."""
        return (features for features, _ in self.pieces(chosen))

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Features `(K, D)` as they were given, and labels `(K,)`; copied only if some are left out."""
        whole = len(self.places) == len(self.rows)
        return self.rows if whole else self.rows[self.places.to(self.rows.device)], self.labels

    def _read(self, chosen: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """fp32 features of any length, with labels."""
        index = torch.arange(len(self.places), device=self.places.device) if chosen is None else chosen.nonzero()[:, 0]
        for part in index.split(ROWS):
            features = self.rows[self.places[part].to(self.rows.device)]
            yield features.to(self.labels.device).float(), self.labels[part]

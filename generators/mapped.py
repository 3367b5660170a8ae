"""No training: the closed-form map from names to image means.

Not from the OGEN paper. Its forms are trained by regression to single images, which from a few dozen known classes
finds little more than the mean of all; here the means of the classes are the targets, the mean over all classes is
taken out, the geometry of the names is the start, and leave-one-out over the classes, which is how the map will be
used, decides how much is added to it (`ogenlib.generators.mean_map`).

Notation: `B` features, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ogenlib.generators.base import ClassConditionalGenerator
from ogenlib.generators.known import KnownClasses
from ogenlib.generators.mean_map import MeanMap, fit_mean_map, left_out_errors


class MappedGenerator(ClassConditionalGenerator):
    """h = what the map of the known classes predicts for w_u; neighbours only lend their residuals.

    A known class that is not among its own neighbours is predicted as if it had no images.
    """

    variant = "mapped"
    _fitted: tuple[KnownClasses, MeanMap, Tensor] | None = None  # to these classes; nothing of it is saved

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        known = self.require_known()
        mean_map, errors = self._map(known)
        means = mean_map(query)
        own = (query @ known.embeddings.T).argmax(dim=1)
        is_known, is_near = _same(query, known.embeddings[own]), _same(keys, query[:, None]).any(dim=1)
        return torch.where((is_known & ~is_near)[:, None], (known.means - errors)[own].to(means), means)

    def _map(self, known: KnownClasses) -> tuple[MeanMap, Tensor]:
        if self._fitted is None or self._fitted[0] is not known:
            mean_map = fit_mean_map(known.means, known.embeddings)
            self._fitted = (known, mean_map, left_out_errors(mean_map, known.means))
        return self._fitted[1:]


def _same(a: Tensor, b: Tensor) -> Tensor:
    """Which unit vectors are one name's: its embedding may have been brought to unit length once more."""
    return (a - b).abs().amax(dim=-1) < 1e-5

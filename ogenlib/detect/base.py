"""What every detector here shares: features of any length and dtype, scored in pieces without gradients.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_ood.api import FeaturesDetector, ModelNotSetException, RequiresFittingException
from pytorch_ood.utils import extract_features
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import Self

# Numbers in flight while a piece is scored: 64 MB of fp32 for each similarity matrix, whatever the number of images.
PIECE = 1 << 24

Encoder = Callable[[Tensor], Tensor]


def check_rows(name: str, vectors: Any, dim: int | None = None) -> None:
    """Refuse what is no `(count, dim)` tensor; TypeError or ValueError, `name` is named."""
    if not isinstance(vectors, Tensor):
        raise TypeError(f"{name} is a {type(vectors).__name__}; pass a tensor of rows (count, dimensions)")
    if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim):
        shape = "(count, dimensions)" if dim is None else f"(count, {dim}), as wide as the class embeddings"
        raise ValueError(f"{name} has shape {tuple(vectors.shape)}; rows of shape {shape} are needed")


def check_finite(name: str, pieces: Iterable[Tensor]) -> None:
    """ValueError if features hold NaN or infinity, with how many do in all pieces."""
    bad = count = 0
    for features in pieces:
        count += len(features)
        finite = torch.isfinite(features)
        bad += 0 if bool(finite.all()) else int((~finite.all(dim=1)).sum())
    if bad:
        raise ValueError(f"{bad} of {count} rows of {name} hold NaN or infinity; leave these out, or encode in fp32")


def unit_rows(name: str, vectors: Any, dim: int | None = None) -> Tensor:
    """fp32 vectors of length one (a vector of zeros stays zero).

    Raises:
        TypeError: not a tensor.
        ValueError: not two-dimensional, another width than `dim`, or not finite; `name` is named.
    """
    check_rows(name, vectors, dim)
    vectors = vectors.detach().float()
    check_finite(name, [vectors])
    return F.normalize(vectors, dim=-1)


class ChunkedDetector(FeaturesDetector):
    """Base of the detectors on image features. Subclasses write `score_rows` and, if they need it, `fit_features`.

    Attributes:
        encoder: pixels -> features `(B, D)`, or None where features are passed.
        class_embeddings: `(C, D)` unit vectors.

    Raises:
        TypeError, ValueError: class embeddings that are no `(C, D)` tensor, or none.
    """

    def __init__(self, encoder: Encoder | None, class_embeddings: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.class_embeddings = unit_rows("class_embeddings", class_embeddings)
        if len(self.class_embeddings) == 0:
            raise ValueError("class_embeddings has no rows; pass one for each known class")

    def score_rows(self, z: Tensor) -> Tensor:
        """Outlier scores `(B,)` of unit features `(B, D)` on the detector's device; larger is more unknown."""
        raise NotImplementedError

    def row_cost(self) -> int:
        """Numbers that one image needs while it is scored."""
        return len(self.class_embeddings)

    def ready(self) -> None:
        """Called once before features are scored."""

    @torch.no_grad()
    def predict_features(self, x: Tensor) -> Tensor:
        """Outlier scores `(B,)`, fp32, of features `(B, D)` of any length and dtype; larger is more unknown.

        Memory does not grow with `B` beyond features and scores.

        Raises:
            RequiresFittingException: a detector that needs fitting was not fitted.
            TypeError, ValueError: not features of the embeddings' width, or not finite.
        """
        if self.requires_fit and not self.fitted:
            raise RequiresFittingException
        x = self.flatten(x)
        self.ready()
        scores = torch.empty(len(x), device=self.class_embeddings.device)
        step = max(1, PIECE // max(1, self.row_cost()))
        # A caller's autocast would round the similarities to steps wider than the differences between scores.
        with torch.autocast(device_type=scores.device.type, enabled=False):
            for start in range(0, len(x), step):
                piece = x[start : start + step].to(scores.device)
                scores[start : start + step] = self.score_rows(self.unit(piece))
        return scores

    def flatten(self, x: Tensor) -> Tensor:
        """What `predict_features` was given as `(count, dimensions)`, without a copy."""
        if not isinstance(x, Tensor):
            raise TypeError(f"features are a {type(x).__name__}; pass a tensor of rows (count, dimensions)")
        return x

    def unit(self, x: Tensor) -> Tensor:
        """Unit features of a piece."""
        return unit_rows("features", x, self.class_embeddings.shape[1])

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Outlier scores `(B,)` of inputs of the encoder, such as pixels.

        Raises:
            ModelNotSetException: there is no encoder.
            RequiresFittingException: a detector that needs fitting was not fitted.
        """
        if self.encoder is None:
            raise ModelNotSetException
        if self.requires_fit and not self.fitted:
            raise RequiresFittingException
        return self.predict_features(self.encoder(x.to(self.device)).flatten(1))

    @property
    def fitted(self) -> bool:
        """Whether `fit` or `fit_features` was called."""
        return False

    def fit(self, data_loader: DataLoader) -> Self:
        """Fit on a loader of `(x, y)` through the encoder; images with `y < 0` are ignored.

        Raises:
            ModelNotSetException: there is no encoder.
        """
        if type(self).fit_features is FeaturesDetector.fit_features:
            return self
        if self.encoder is None:
            raise ModelNotSetException("When using fit(), encoder must not be None; fit_features(z, y) needs none")
        z, y = extract_features(data_loader, self.encoder, self.device)
        return self.fit_features(z, y)

"""OGENDetector for code that reads logits.

pytorch-ood reports accuracies for detectors on logits only. Some of the evidence is not in the class logits, so the
model of this detector gives the features too, behind the logits and always below them: the first `C` columns decide
the argmax.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pytorch_ood.api import DetectorInfo, LogitsDetector, ModelNotSetException
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import Self

from ogenlib.detect.ogen_detector import OGENDetector


class LogitsWithFeatures(nn.Module):
    """Inputs -> `(B, C + D)`: class logits, then the unit features.

    Logits are `scale * (cosine + 2)`, so at least `scale`: a softmax is the same, and no column of a unit feature
    reaches them.
    """

    class_embeddings: Tensor

    def __init__(self, encoder: Callable[[Tensor], Tensor], class_embeddings: Tensor, scale: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("class_embeddings", class_embeddings)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.of_features(self.encoder(x).flatten(1))

    def of_features(self, z: Tensor) -> Tensor:
        """`(B, C + D)` of features `(B, D)`."""
        z = F.normalize(z.float(), dim=-1)
        return torch.cat([self.scale * (z @ self.class_embeddings.T + 2), z], dim=1)


class OGENLogitsDetector(LogitsDetector):
    """What `OGENDetector.as_logits_detector` returns; scores are those of the detector it came from.

    Attributes:
        detector: that detector, shared and not copied.
        model: inputs -> `(B, C + D)`, None if the detector has no encoder.

    Raises:
        ValueError: `scale` is not above 1.
    """

    info: DetectorInfo = OGENDetector.info  # type: ignore[misc]

    def __init__(self, detector: OGENDetector, scale: float = 100.0) -> None:
        super().__init__()
        if not scale > 1:
            raise ValueError(f"scale={scale}: must be above 1; CLIP's own is 100")
        self.detector, self.scale = detector, scale
        encoder = detector.encoder
        self.model = None if encoder is None else self._model(encoder)
        self.requires_fit = detector.requires_fit
        self.hyperparameter_space = dict(detector.hyperparameter_space)

    def _model(self, encoder: Callable[[Tensor], Tensor]) -> LogitsWithFeatures:
        return LogitsWithFeatures(encoder, self.detector.class_embeddings, self.scale)

    @property
    def device(self) -> torch.device:
        """Of the detector."""
        return self.detector.class_embeddings.device

    def to(self, device: str | torch.device) -> Self:
        """Move detector and model; returns self."""
        self.detector.to(device)
        if self.model is not None:
            self.model.to(device)
        return self

    def get_hyperparameters(self) -> dict:
        return self.detector.get_hyperparameters()

    def set_hyperparameters(self, **values: object) -> Self:
        self.detector.set_hyperparameters(**values)
        return self

    def logits(self, z: Tensor) -> Tensor:
        """What `predict_logits` reads, `(B, C + D)`, of features `(B, D)`."""
        return self._model(lambda x: x).of_features(z.to(self.device))

    def predict(self, x: Tensor) -> Tensor:
        """Outlier scores `(B,)` of inputs of the encoder."""
        if self.model is None:
            raise ModelNotSetException
        return self.detector.predict(x)

    def predict_logits(self, logits: Tensor) -> Tensor:
        """Outlier scores `(B,)` of what `model` returns, `(B, C + D)`.

        Raises:
            ValueError: another width; class logits alone do not hold the evidence.
        """
        classes, dim = self.detector.class_embeddings.shape
        if logits.ndim != 2 or logits.shape[1] != classes + dim:
            raise ValueError(
                f"logits are {tuple(logits.shape)}; (B, {classes} + {dim}) are needed, class logits and behind them "
                "features: what detector.model(x) or detector.logits(features) returns"
            )
        return self.detector.predict_features(logits[:, classes:])

    def fit(self, data_loader: DataLoader) -> Self:
        """Fit the detector on a loader; images with `y < 0` are ignored."""
        self.detector.fit(data_loader)
        return self

    def fit_logits(self, logits: Tensor, y: Tensor) -> Self:
        """Fit on what `model` returns, `(N, C + D)`, and labels `(N,)`."""
        self.detector.fit_features(logits[:, len(self.detector.class_embeddings) :], y)
        return self

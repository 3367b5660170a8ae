"""GL-MCM: the best match of the whole image and of its best patch.

"GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot Out-of-Distribution Detection", Miyai et al., 2023.
https://arxiv.org/abs/2304.04521

Reproduced: the sum of MCM of the image's feature and, weighted, the largest softmax of any patch over the names.
Different: patches are open_clip's tokens after the last block (`forward_intermediates`); the paper takes the values
of the last attention in place of what it attends to. Numbers of the paper are not to be expected.

Notation: `B` images, `P` patches, `C` classes, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_ood.api import DetectorInfo, Paper, Task
from torch import Tensor

from ogenlib.detect.base import ChunkedDetector, Encoder, unit_rows


class GLMCM(ChunkedDetector):
    """Minus the sum of global and local maximum softmax.

    Args:
        encoder: inputs -> `(B, 1 + P, D)`, the image's feature before those of its patches (`PatchEncoder(clip)`),
            or None where features are passed.
        class_embeddings: `(C, D)` of the known names.
        temperature: the similarities are divided by it, 1 as in pytorch-ood's MCM.
        local: weight of the patches, 1 as in the paper; 0 is MCM.

    Raises:
        TypeError, ValueError: embeddings that do not fit, or a setting out of range.
    """

    info = DetectorInfo(
        tasks=frozenset({Task.CLASSIFICATION}),
        paper=Paper(
            title="GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot Out-of-Distribution Detection",
            venue="arXiv",
            year=2023,
            url="https://arxiv.org/abs/2304.04521",
            code="https://github.com/AtsuMiyai/GL-MCM",
        ),
        ai_coded=True,
    )
    hyperparameter_space = {"temperature": [0.01, 0.1, 1.0], "local": [0.0, 0.5, 1.0]}  # noqa: RUF012

    def __init__(
        self, encoder: Encoder | None, class_embeddings: Tensor, temperature: float = 1.0, local: float = 1.0
    ) -> None:
        super().__init__(encoder, class_embeddings)
        self.temperature, self.local = temperature, local
        self.ready()

    def ready(self) -> None:
        if not self.temperature > 0 or not self.local >= 0:
            raise ValueError(
                f"temperature={self.temperature}, local={self.local}: the one must be above 0, the other 0 or more"
            )

    def flatten(self, x: Tensor) -> Tensor:
        """`(B, 1 + P, D)`, or the same flattened to `(B, (1 + P) * D)` as pytorch-ood keeps it."""
        dim = self.class_embeddings.shape[1]
        shape = tuple(x.shape) if isinstance(x, Tensor) else ()
        if len(shape) == 3 and shape[2] == dim:
            return x
        if len(shape) == 2 and shape[1] and shape[1] % dim == 0:
            return x.unflatten(1, (-1, dim))
        raise ValueError(
            f"features are {shape or type(x).__name__}; (B, 1 + P, {dim}) are needed, the image's before "
            "those of its patches: PatchEncoder(clip) makes them"
        )

    def unit(self, x: Tensor) -> Tensor:
        return unit_rows("features", x.flatten(0, 1), x.shape[-1]).unflatten(0, x.shape[:2])

    def row_cost(self) -> int:
        return 256 * len(self.class_embeddings)  # patches of a large tower

    def score_rows(self, z: Tensor) -> Tensor:
        """Of `(B, 1 + P, D)`."""
        best = F.softmax(z @ self.class_embeddings.T / self.temperature, dim=-1).amax(dim=-1)
        local = best[:, 1:].amax(dim=1) if best.shape[1] > 1 else torch.zeros_like(best[:, 0])
        return -(best[:, 0] + self.local * local)

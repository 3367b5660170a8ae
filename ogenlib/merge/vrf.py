"""VRF: a trained host and zero-shot mixed image by image, by how near an image is to what zero-shot got wrong.

"Robust Fine-tuning of Zero-shot Models via Variance Reduction", Zhu et al., NeurIPS 2024.
https://openreview.net/forum?id=ViTUlZvPDu

Reproduced, in two forms that differ. Both: the failure set `V`, features by the trained model of those training images
that it gets right and zero-shot wrong; the distance d of an image to the k-th nearest of them;
``w = sigmoid(-(d - a) / b)`` with a 1.5 and b 0.6; ``p = w * p_trained + (1 - w) * p_zero_shot``.
``paper``: d is the L2 distance, k 0.1 % of `V`, and predictions are as they come.
``released-code`` (src/knn_distance.py, src/main.py): d is the *squared* distance (faiss' flat index), k is
``round(1000 V / N)``, and both models' logits are first divided by a temperature at which mean confidence is accuracy.
Different: k is at least 1 and at most `V` (on few images the code's k would be more); the search is exact and in
torch; the code finds temperatures on the ImageNet validation images that it reports, here they must be others.

Notation: `B` images, `C` classes, `D` the host's embedding, `E` the model's, `N` training images, `V` failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.hosts import Batch, Host, MethodInfo, ZeroShotAnchor
from ogenlib.train.batches import Bank, test_batches

FORMS = ("paper", "released-code")
A, B = 1.5, 0.6  # of the released code; the paper's for ImageNet
TEMPERATURES = (1e-2, 1e2)  # searched between


def failure_weight(distance: Tensor, a: float = A, b: float = B) -> Tensor:
    """``sigmoid(-(d - a) / b)`` of distances of any shape: the trained model's share, a half at `a`."""
    return torch.sigmoid(-(distance - a) / b)


def kth_distance(z: Tensor, failures: Tensor, k: int, *, squared: bool = False) -> Tensor:
    """`(B,)`: the L2 distance of features `(B, D)` to the k-th nearest (from 1) of `failures` `(V, D)`."""
    # Not through matrix products: their rounding is large beside the distance of an image to itself.
    distances = torch.cdist(z.float(), failures.float(), compute_mode="donot_use_mm_for_euclid_dist")
    kth = distances.kthvalue(k, dim=-1).values
    return kth**2 if squared else kth


def neighbours(failures: int, images: int, form: str) -> int:
    """k of `failures` among `images` training images: 0.1 % of the failures, or ``round(1000 V / N)``."""
    k = round(0.001 * failures) if form == "paper" else round(1000 * failures / images)
    return min(max(k, 1), failures)


def matching_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which the mean of the largest probabilities of `logits` `(N, C)` is their accuracy.

    Confidence falls as the temperature rises, so halving an interval finds it; beyond 0.01 and 100 the nearer end.
    """
    accuracy = (logits.argmax(-1) == labels).double().mean().item()
    low, high = (math.log(t) for t in TEMPERATURES)
    for _ in range(60):
        middle = (low + high) / 2
        confident = (logits.double() / math.exp(middle)).softmax(-1).amax(-1).mean().item()
        low, high = (middle, high) if confident > accuracy else (low, middle)
    return math.exp((low + high) / 2)


class VRF(Host):
    """What to test in place of a trained host: nothing more is trained, and every image goes through both models.

    Its `logits` are the logarithm of the mixed probabilities over the names it is asked for. So to score images among
    some names only, ask for these: picking columns afterwards is another mixture.

    Args:
        host: trained; with OGEN or without.
        bank: the images it was trained on, features or pixels as it needs them; their first view is used.
        form: ``paper`` or ``released-code``.
        a, b: of the weight; of k: None for the form's own.
        calibration: labelled images of the host's names for the temperatures of ``released-code``: neither trained
            on nor reported.

    Attributes:
        failures: `(V, D)` unit vectors.
        temperatures: of the trained model and of zero-shot.

    Raises:
        ValueError: an unknown form, a `b` that is not positive, a k that is not among the failures, calibration images
            missing or of no use, or a host that zero-shot never falls behind on its own training images.
    """

    info = MethodInfo(
        "vrf",
        "baseline",
        "Robust Fine-tuning of Zero-shot Models via Variance Reduction",
        "https://openreview.net/forum?id=ViTUlZvPDu",
        2024,
        ogen=False,
    )

    def __init__(
        self,
        host: Host,
        bank: Bank,
        form: str = "paper",
        *,
        a: float = A,
        b: float = B,
        k: int | None = None,
        calibration: Bank | None = None,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form={form!r}: must be one of {', '.join(FORMS)}")
        if not (b > 0 and math.isfinite(b) and math.isfinite(a)):
            raise ValueError(f"a={a}, b={b}: must be numbers, b above 0 ({A} and {B} in the paper)")
        if (calibration is None) == (form == "released-code"):
            needs = "needs calibration=BANK, labelled images that are neither trained on nor reported"
            raise ValueError(f"form={form!r} " + (needs if calibration is None else "takes no calibration images"))
        super().__init__(host.clip, host.names)
        object.__setattr__(self, "host", host)
        self.uses_cached_features = host.uses_cached_features  # type: ignore[misc]
        self.form, self.a, self.b = form, a, b
        self.anchor = ZeroShotAnchor(host.clip, host.reference_templates())
        self.temperatures = (1.0, 1.0)
        data = bank.select(self.names)
        z, trained, zero_shot, labels = self._predicted(data)
        own = z[:, : z.shape[1] - host.clip.embed_dim]
        wrong = (trained.argmax(-1) == labels) & (zero_shot.argmax(-1) != labels)
        if not wrong.any():
            raise ValueError(
                f"zero-shot fails on none of the {len(labels)} training images that {host.info.name} gets right, so "
                "there is nothing to be near to; VRF needs a host that learned something on these images"
            )
        self.failures = nn.functional.normalize(own[wrong], dim=-1)
        self.k = neighbours(len(self.failures), len(labels), form) if k is None else k
        if not 1 <= self.k <= len(self.failures):
            raise ValueError(f"k={k}: must be from 1 to {len(self.failures)}, the failures; None takes the form's own")
        if calibration is not None:
            _, trained, zero_shot, labels = self._predicted(calibration.select(self.names))
            self.temperatures = matching_temperature(trained, labels), matching_temperature(zero_shot, labels)

    host: Host

    @torch.no_grad()
    def _predicted(self, data: Bank) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features `(N, D + E)`, logits `(N, C)` of the trained model and of zero-shot, and labels `(N,)`."""
        self.eval()
        features, pairs, fixed = [], [], None
        for batch in test_batches(self, data, 256):
            z = self.image_features(batch)
            if fixed is None or fixed.ndim == 3:
                fixed = self.class_weights(z=z)
            features.append(z)
            pairs.append(self._both(z, fixed))
        trained, zero_shot = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return torch.cat(features), trained, zero_shot, data.labels.to(trained.device)

    def image_features(self, batch: Batch) -> Tensor:
        """`(B, D + E)`: the host's, and behind them the frozen tower's."""
        return torch.cat([self.host.image_features(batch), Host.image_features(self, batch)], dim=-1)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """`(C, D + E)` or `(B, C, D + E)`: the host's, and behind them zero-shot's."""
        names = self.names if names is None else tuple(names)
        own = self.host.class_weights(names, z=None if z is None else z[:, : -self.clip.embed_dim])
        fixed = self.anchor(names)
        return torch.cat([own, fixed.expand(*own.shape[:-1], -1).to(own.dtype)], dim=-1)

    def _both(self, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, C)` of the trained model and of zero-shot, each over its temperature."""
        at = z.shape[-1] - self.clip.embed_dim
        frozen = w[..., at:] if w.ndim == 2 else w[0, :, at:]
        own, fixed = self.host.logits(z[:, :at], w[..., :at]), Host.logits(self, z[:, at:], frozen)
        return own.float() / self.temperatures[0], fixed.float() / self.temperatures[1]

    def share(self, z: Tensor) -> Tensor:
        """`(B,)`: how far each image is scored by the trained model, of features `(B, D + E)`."""
        own = nn.functional.normalize(z[:, : -self.clip.embed_dim], dim=-1)
        squared = self.form == "released-code"
        return failure_weight(kth_distance(own, self.failures, self.k, squared=squared), self.a, self.b)

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        """`(B, C)`: logarithms of the mixed probabilities."""
        own, fixed = self._both(z, w)
        share = self.share(z)[:, None]
        # In logarithms, so that a class both models exclude keeps its rank.
        return torch.logaddexp(share.log() + own.log_softmax(-1), (1 - share).log() + fixed.log_softmax(-1))

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        raise ValueError("vrf has nothing to train; train its host, then make VRF(host, bank)")

    def trainable(self) -> dict[str, nn.Parameter]:
        """Nothing."""
        return {}

    def eval(self) -> VRF:
        """The host's modules too, which it holds but does not own."""
        self.host.eval()
        return super().eval()

    def save(self, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
        raise ValueError("vrf is not saved; save its host, and make VRF(host, bank) again from the training images")

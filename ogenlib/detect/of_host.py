"""What detectors read of a trained host: its features, its class weights, its logits.

A host may score images otherwise than by `scale * z @ w.T` (an adapter on the features, a cache), or by weights that
depend on the image. MCM, MaxLogit and Energy read its logits and so take every host; OGENDetector wants one weight for
each name, and sees features and weights without what `logits` adds.

Notation: `N` images, `C` known names, `U` other names, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pytorch_ood.detector import EnergyBased, MaxLogit, MaxSoftmax
from torch import Tensor

from ogenlib.detect.base import Encoder
from ogenlib.detect.encoder import ImageEncoder
from ogenlib.detect.ogen_detector import OGENDetector
from ogenlib.hosts import Host
from ogenlib.runs.saved import fixed_weights
from ogenlib.train.batches import Bank, test_batches

# Name in results -> what it is.
DETECTORS = {
    "mcm": "MCM", "max_logit": "MaxLogit", "energy": "Energy", "ogen": "OGENDetector",
    "ogen_images": "OGENDetector with images",
}  # fmt: skip
Scorer = Callable[["Seen"], Tensor]


@dataclass(frozen=True)
class Seen:
    """Images as a host sees them: features `(N, D)` (`(N, 2 D)` of two towers) and logits `(N, C)`, on the CPU."""

    z: Tensor
    logits: Tensor


@torch.no_grad()
def seen(host: Host, bank: Bank, batch_size: int = 256) -> Seen:
    """First views of a bank, with logits over the names that the host was trained on."""
    host.eval()
    features, logits, fixed = [], [], None
    for batch in test_batches(host, bank, batch_size):
        z = host.image_features(batch)
        w = host.class_weights(z=z) if fixed is None else fixed
        fixed = w if w.ndim == 2 else None
        features.append(z.float().cpu())
        logits.append(host.logits(z, w).float().cpu())
    if not features:
        return Seen(torch.zeros(0, host.clip.embed_dim), torch.zeros(0, len(host.names)))
    return Seen(torch.cat(features), torch.cat(logits))


def class_rows(host: Host, names: Sequence[str] | None = None) -> Tensor:
    """Class weights of any names (None: the training names), `(C, D)`, `(C, 2 D)` of two towers; unit vectors.

    Raises:
        ValueError: they depend on the image.
    """
    weights = fixed_weights(host, names, directions=True)
    if weights is None:
        raise ValueError(
            f"class weights of {host.info.name} depend on the image, so there are none to detect with; "
            "use a run of another method"
        )
    return weights


def detector_of(
    host: Host,
    unknown: Sequence[str] | None = None,
    fit: tuple[Tensor, Tensor] | None = None,
    encoder: Encoder | None = None,
) -> OGENDetector:
    """The detector of a host's names, with other names and images of the known classes where there are some.

    A host on two towers scores the names it was trained on by its own tower and all others by the frozen one, so its
    features are two vectors in one. Without other names the own tower's half is all there is to see (`trained_half`).
    With them both halves are needed; a cosine of such a vector is a cosine of one half over the root of two, and so the
    temperatures are.

    Args:
        fit: features as the host makes them and labels into its names.
        encoder: inputs -> what `fit` holds; None where features are passed.

    Raises:
        ValueError: class weights that depend on the image, or an unknown name that is known.
    """
    both = sorted(set(unknown or ()) & set(host.names))
    if both:
        raise ValueError(f"--unknown holds {both[:3]}, which the run knows; leave them out")
    weights = class_rows(host)
    others = class_rows(host, unknown) if unknown else None
    if others is None:
        detector = OGENDetector(encoder, None, trained_half(weights, host))
        return detector if fit is None else detector.fit_features(trained_half(fit[0], host), fit[1])
    width = weights.shape[1] / host.clip.embed_dim
    settings = (
        {
            name: getattr(OGENDetector(None, None, weights), name) / math.sqrt(width)
            for name in ("temperature", "image_temperature")
        }
        if width > 1
        else {}
    )
    detector = OGENDetector(encoder, None, weights, others, **settings)
    return detector if fit is None else detector.fit_features(*fit)


def trained_half(vectors: Tensor, host: Host) -> Tensor:
    """What features or class weights of the training names hold of the host's own tower, `(N, D)`."""
    return vectors[:, : host.clip.embed_dim]


class OwnTower(ImageEncoder):
    """`ImageEncoder` of a host on two towers, without the frozen one's half."""

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        z = super().forward(pixels)
        return torch.nn.functional.normalize(z[:, : self.clip.embed_dim], dim=-1)


def encoder_of(host: Host, unknown: Sequence[str] | None = None) -> ImageEncoder:
    """Pixels -> the features that `detector_of` is for."""
    return ImageEncoder(host) if unknown else OwnTower(host)


def scorers(host: Host, trained: tuple[Seen, Tensor] | None) -> tuple[dict[str, Scorer], dict[str, str]]:
    """How each of `DETECTORS` scores what a host sees, and why some of them do not.

    Args:
        trained: training images as the host sees them, with labels into its names; None without any.
    """
    bias = host.clip.logit_bias
    scale, shift = float(host.clip.logit_scale), 0.0 if bias is None else float(bias)
    by_name: dict[str, Scorer] = {
        # MCM is the softmax of cosines at temperature 1; the logits over the scale are these, or what the host has
        # in their place.
        "mcm": lambda images: MaxSoftmax.score((images.logits - shift) / scale, t=1.0),
        "max_logit": lambda images: MaxLogit.score(images.logits),
        "energy": lambda images: EnergyBased.score(images.logits, t=1.0),
    }
    missing: dict[str, str] = {}
    kinds: Mapping[str, tuple[Tensor, Tensor] | None] = {
        "ogen": None,
        **({} if trained is None else {"ogen_images": (trained[0].z, trained[1])}),
    }
    for name, fit in kinds.items():
        try:
            detector = detector_of(host, fit=fit)
        except ValueError as error:
            missing[name] = str(error)
            continue
        by_name[name] = _features_scorer(detector, host)
    return by_name, missing


def _features_scorer(detector: OGENDetector, host: Host) -> Scorer:
    return lambda images: detector.predict_features(trained_half(images.z, host)).cpu()

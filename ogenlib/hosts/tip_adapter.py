"""Tip-Adapter and Tip-Adapter-F: training images as a cache that is looked up beside the zero-shot weights.

"Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", Zhang et al., ECCV 2022.
https://arxiv.org/abs/2207.09519

Reproduced: keys are training features, averaged over their views and normalised again; a class scores
``scale * cos + alpha * sum over its keys of exp(-beta * (1 - f . key))``, alpha 1.17 and beta 1 (the released settings
for ImageNet); the F variant trains the keys from there, AdamW at 1e-3 for 20 epochs, without normalising them again.
Different: features are normalised before they are averaged; `scale` is the model's own (100 in the released code).
The released code chooses alpha and beta on a validation set and the F variant's epoch on the test set; here nothing
is chosen unless `search=True`, and then on training images that are held out of the cache, and the last epoch counts.
Names outside the training names have no keys: they keep their zero-shot logit. The cache only ever adds, several
logits to every training name, so beside them a new name could not win; `centred` takes the mean over the training
names off each image's cache scores, which changes nothing among training names. Keys are summed, as released: classes
should have equally many images.

Notation: `B` images, `C` classes, `D` embedding, `K` training names, `N` keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, Host, MethodInfo
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.towers import ClipLike

PAPER = "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification"
URL = "https://arxiv.org/abs/2207.09519"
ALPHA, BETA = 1.17, 1.0  # released code, configs of ImageNet
LR = 1e-3  # released code
ALPHAS, BETAS = 3.0, 7.0  # largest values searched: released code, configs of ImageNet
STEPS = 20  # values of each: released for alpha; it tries 200 of beta
HELD_OUT = 0.25  # share of a class's images that the search scores
SAME = 1e-4  # two weights of one name differ by rounding alone, those of two names by far more


class CacheHost(AnchoredHost):
    """Zero-shot weights and a cache of training features.

    Args:
        templates: of the zero-shot weights.
        alpha: weight of the cache, in units of logits.
        beta: sharpness of the look-up.
        centred: take an image's mean cache score off; False is the released code.
        search: choose alpha and beta in `prepare`, on a quarter of the training images; they replace the two given.
        size: `N` of a saved run; 0 until `prepare`.

    Attributes:
        keys, labels: the cache, `(N, D)` and `(N,)` into the training names.

    Raises:
        ValueError: an alpha or beta that is not a positive number, or a negative size.
    """

    keys: Tensor
    labels: Tensor

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        alpha: float = ALPHA,
        beta: float = BETA,
        centred: bool = True,
        search: bool = False,
        size: int = 0,
    ) -> None:
        super().__init__(clip, names, templates)
        for argument, value, usual in (("alpha", alpha, ALPHA), ("beta", beta, BETA)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{argument}={value}: must be a positive number (released for ImageNet: {usual})")
        if size < 0:
            raise ValueError(f"size={size}: must be 0 or more; leave it out, training sets it")
        self.alpha, self.beta, self.centred, self.search = alpha, beta, centred, search
        self.anchor(self.names)  # refuses names without text features before any training
        self._keep(torch.zeros(size, clip.embed_dim), torch.zeros(size, dtype=torch.long))

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> CacheHost:
        """Alpha 1.17 and beta 1, not centred, as released (F variant: 20 epochs with batches of 256)."""
        return cls(clip, names, **{"centred": False, **options})

    @property
    def size(self) -> int:
        """`N`."""
        return len(self.keys)

    def _keep(self, keys: Tensor, labels: Tensor) -> None:
        self.register_buffer("keys", keys.to(self.device))
        self.register_buffer("labels", labels.to(self.device))

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Fill the cache, anew at every call, and search alpha and beta if asked.

        Raises:
            ValueError: a search where no class has two images.
        """
        if self.search:
            self._search(data, seed)
        self._keep(_keys(data.features), data.labels.clone())

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)`, zero-shot, for any names."""
        return self.anchor(self.names if names is None else names)

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        """`(B, C)`: scaled cosines, plus the cache where one of `w` `(C, D)` is the weight of a training name.

        The weights themselves say whose they are, so any subset or order of names may be scored.
        """
        return super().logits(z, w) + self.alpha * self._cached(z) @ self._columns(w)

    def _cached(self, z: Tensor) -> Tensor:
        """`(B, K)`: each training name's keys, summed, and centred with `centred`."""
        affinity = (z @ self.keys.T).float()
        scores = torch.exp(-self.beta * (1 - affinity))
        summed = scores.new_zeros(z.shape[0], len(self.names)).index_add(1, self.labels, scores)
        return summed - summed.mean(1, keepdim=True) if self.centred else summed

    @torch.no_grad()
    def _columns(self, w: Tensor) -> Tensor:
        """`(K, C)`: 1 where a column of `w` is a training name."""
        with torch.autocast(w.device.type, enabled=False):
            cosines = self.anchor(self.names) @ w.float().T
        best, owner = cosines.max(0)
        one_hot = F.one_hot(owner, len(self.names)).T.to(cosines.dtype)
        return one_hot * (best > 1 - SAME)

    @torch.no_grad()
    def _search(self, data: FeatureBank, seed: int) -> None:
        """The released grid of alpha and beta, scored on held-out training images; the first best is kept."""
        held = _held_out(data.labels.cpu(), seed).to(data.labels.device)
        if not held.any():
            raise ValueError("search=True holds images out, but no class has two; pass alpha and beta instead")
        self._keep(_keys(data.features[~held]), data.labels[~held])
        z, labels = F.normalize(data.features[held, 0].float(), dim=-1).to(self.device), data.labels[held]
        zero_shot = Host.logits(self, z, self.anchor(self.names))
        best, chosen = -1.0, (self.alpha, self.beta)
        for self.beta in _grid(BETAS):
            cached = self._cached(z)
            for alpha in _grid(ALPHAS):
                right = ((zero_shot + alpha * cached).argmax(1) == labels.to(z.device)).float().mean().item()
                if right > best:
                    best, chosen = right, (alpha, self.beta)
        self.alpha, self.beta = chosen


@register
class TipAdapter(CacheHost):
    """Tip-Adapter: nothing is trained, `ogenlib.fit` fills the cache. Arguments: those of `CacheHost`."""

    info = MethodInfo("tip_adapter", "adapter", PAPER, URL, 2022, ogen=False, title="Tip-Adapter")
    training_free = True

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        raise ValueError("tip_adapter has nothing to train: ogenlib.fit fills its cache; tip_adapter_f trains the keys")


@register
class TipAdapterF(CacheHost):
    """Tip-Adapter-F: the cache's keys are trained. Arguments: those of `CacheHost`."""

    info = MethodInfo("tip_adapter_f", "adapter", PAPER, URL, 2022, title="Tip-Adapter-F")

    def _keep(self, keys: Tensor, labels: Tensor) -> None:
        self.keys = nn.Parameter(keys.to(self.device))
        self.register_buffer("labels", labels.to(self.device))

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """Cross-entropy over the training names.

        Raises:
            RuntimeError: the cache is empty (`ogenlib.fit` fills it).
        """
        if not len(self.keys):
            raise RuntimeError("the cache is empty; train with ogenlib.fit, or call prepare(bank, epochs, seed)")
        return super().losses(batch, z=z, w=w)

    def train_settings(self) -> dict[str, Any]:
        """The released learning rate."""
        return {"lr": LR}


def _keys(features: Tensor) -> Tensor:
    """Unit features `(N, D)` of `(N, V, D)`: the mean over views."""
    return F.normalize(F.normalize(features.float(), dim=-1).mean(1), dim=-1)


def _grid(high: float) -> list[float]:
    """`STEPS` values from 0.1 on, `high` left out, as released."""
    return [0.1 + i * (high - 0.1) / STEPS for i in range(STEPS)]


def _held_out(labels: Tensor, seed: int) -> Tensor:
    """`(N,)` mask: a quarter of every class's images, at least one where it has two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        images = (labels == label).nonzero().flatten()
        if len(images) > 1:
            count = max(1, int(HELD_OUT * len(images)))
            mask[images[torch.randperm(len(images), generator=generator)[:count]]] = True
    return mask

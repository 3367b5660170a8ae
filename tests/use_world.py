"""Hosts that change more than class weights, smallest possible, for what exports have to refuse or trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts import Batch, CoOp, Host, MethodInfo, ZeroShot

NAMES = ["dog", "red apple", "train"]


def info(name: str) -> MethodInfo:
    return MethodInfo(name, "adapter", "none", "https://arxiv.org/abs/0000.00000", 2026)


class Turned(ZeroShot):
    """An image side of its own: features turned by a fixed matrix."""

    info = info("turned")

    def image_features(self, batch: Batch) -> Tensor:
        z = super().image_features(batch)
        turn = torch.linalg.qr(torch.randn(z.shape[1], z.shape[1], generator=torch.Generator().manual_seed(3)))[0]
        return F.normalize(z @ turn, dim=-1)


class Cached(ZeroShot):
    """Logits with something added to scale * z @ w.T."""

    info = info("cached")

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        return super().logits(z, w) + z[:, :1].exp()


class Conditional(ZeroShot):
    """Class weights `(B, C, D)`."""

    info = info("conditional")

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        w = super().class_weights(names)
        return w if z is None else F.normalize(w[None] + 0.5 * z[:, None], dim=-1)


class Merged(Conditional):
    """Every image feature is changed by a tensor of the model itself: its last projection."""

    info = info("merged")
    uses_cached_features = False

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        return super().class_weights(names)

    def merged(self) -> dict[str, Tensor]:
        return {"visual.proj": self.clip.model.visual.proj.flip(0)}

    def image_features(self, batch: Batch) -> Tensor:
        assert batch.pixels is not None
        changed = torch.func.functional_call(
            self.clip.model.visual, {"proj": self.merged()["visual.proj"]}, batch.pixels
        )
        return F.normalize(changed, dim=-1)


def trained(clip: Any) -> CoOp:
    """A CoOp whose context is off its start."""
    host = CoOp(clip, NAMES, "an icon of a")
    with torch.no_grad():
        host.context.add_(0.1 * torch.randn(host.context.shape, generator=torch.Generator().manual_seed(1)))
    return host


def pixels_of(host: Host, count: int) -> Tensor:
    return torch.randn(count, 3, *host.clip.image.image_size, generator=torch.Generator().manual_seed(count))


def logits_of(host: Host, pixels: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """Logits as `Classifier` makes them."""
    with torch.no_grad():
        z = host.image_features(Batch(torch.zeros(len(pixels), dtype=torch.long), pixels=pixels))
        return host.logits(z, host.class_weights(names, z=z))

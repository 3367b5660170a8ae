"""Encoders: pixels -> features, as one module that detectors share.

pytorch-ood keeps extracted features by the identity of the encoder: two detectors share them when both were given the
same object.

Notation: `B` images, `P` patches, `D` embedding.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts import Batch, Host
from ogenlib.towers import ClipLike


class ImageEncoder(nn.Module):
    """Pixels `(B, 3, height, width)` -> unit features `(B, D)`, always in eval mode and without gradients.

    Args:
        source: a backbone (its frozen image tower), or a host (trained prompts or towers).

    Raises:
        TypeError: neither of these.
    """

    def __init__(self, source: ClipLike | Host) -> None:
        super().__init__()
        if not isinstance(source, ClipLike | Host):
            raise TypeError(f"{type(source).__name__} is neither a backbone nor a host; pass load_backbone(...)")
        self.host = source if isinstance(source, Host) else None
        self.clip = source.clip if isinstance(source, Host) else source
        self.eval()

    def train(self, mode: bool = True) -> ImageEncoder:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        if self.host is None:
            return self.clip.encode_image(pixels)
        labels = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
        return F.normalize(self.host.image_features(Batch(labels, pixels=pixels)).float(), dim=-1)

    def fingerprint(self) -> str:
        """16 hex digits over all that decides the features: a `cache_key` for `Benchmark.evaluate`."""
        facts: dict[str, Any] = {"clip": self.clip.fingerprint(), "precision": self.clip.precision}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        if self.host is not None:
            digest.update(self.host.info.name.encode())
            for name, value in sorted(self.host.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class PatchEncoder(nn.Module):
    """Pixels -> unit features `(B, 1 + P, D)`: the image's feature, then one of each patch in the same space.

    Patches are open_clip's `forward_intermediates` after the last block, through the tower's last norm and projection.

    Raises:
        ValueError: a tower other than open_clip's own vision transformer pooled at its class token.
    """

    def __init__(self, clip: ClipLike) -> None:
        super().__init__()
        if not isinstance(clip, ClipLike):
            raise TypeError(f"{type(clip).__name__} is no backbone; pass load_backbone(...)")
        _ = clip.image.width  # refuses towers without patch tokens
        self.clip = clip
        self.eval()

    def train(self, mode: bool = True) -> PatchEncoder:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        visual: Any = self.clip.image.visual
        outputs = visual.forward_intermediates(
            pixels.to(self.clip.device, self.clip.image.dtype),
            indices=1,
            normalize_intermediates=True,
            output_fmt="NLC",
        )
        patches = outputs["image_intermediates"][-1]
        if visual.proj is not None:
            patches = patches @ visual.proj
        return F.normalize(torch.cat([outputs["image_features"][:, None], patches], dim=1).float(), dim=-1)

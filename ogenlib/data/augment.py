"""Random resized crops and flips that depend on the image's key and the view's number alone.

Notation: (3, H, W) pixels normalised as the backbone wants them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Augment:
    """A random resized crop, then a horizontal flip with probability `flip`.

    scale: least and greatest share of the image's area that a crop keeps. The default spares images whose
        subject fills the frame; CoOp and its descendants use torchvision's (0.08, 1.0).
    flip: 0.5 as in CoOp; set 0 where left and right matter (letters, arrows).
    Raises ValueError for a scale outside 0 < low <= high <= 1 or a flip outside 0..1.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale is {self.scale}; it must be (low, high) with 0 < low <= high <= 1")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; it is a probability, from 0 to 1")
        object.__setattr__(self, "scale", (float(low), float(high)))
        object.__setattr__(self, "flip", float(self.flip))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for fingerprints."""
        return {**asdict(self), "scale": list(self.scale)}


class Augmenter:
    """Draws augmented views for one backbone, given the backbone's `preprocess_cfg` (open_clip's keys)."""

    def __init__(self, preprocess_cfg: Mapping[str, Any], augment: Augment | None = None) -> None:
        """Raises ValueError if `preprocess_cfg` lacks `size`, `mean` or `std`."""
        missing = [key for key in ("size", "mean", "std") if key not in preprocess_cfg]
        if missing:
            raise ValueError(
                f"preprocess_cfg lacks {', '.join(missing)}; pass the backbone's own, "
                f"model.visual.preprocess_cfg in open_clip"
            )
        augment = augment or Augment()
        size = preprocess_cfg["size"]
        self._size = (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))
        self._resize_mode = preprocess_cfg.get("resize_mode") or "shortest"
        self._fill = preprocess_cfg.get("fill_color") or 0
        # like open_clip, everything but "bilinear" means bicubic
        bilinear = preprocess_cfg.get("interpolation") == "bilinear"
        self._interpolation = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        self._flip = augment.flip
        self._crop = v2.RandomResizedCrop(
            self._size,
            scale=augment.scale,
            interpolation=InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC,
            antialias=True,
        )
        self._to_pixels = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean=list(preprocess_cfg["mean"]), std=list(preprocess_cfg["std"])),
            ]
        )

    def __call__(self, image: Image.Image, *, seed: int, key: str, view: int) -> Tensor:
        """One view, (3, H, W) float32; the same for the same image, seed, key and view, in any order.

        The global random state is left as it was. May be called from several threads.
        """
        framed = self._frame(image)
        # torchvision draws from the global generator, which the threads of a process share
        with _DRAWING, torch.random.fork_rng(devices=[]):
            # torch.manual_seed would reseed the accelerators too, which an empty `devices` does not restore
            torch.default_generator.manual_seed(view_seed(seed, key, view))
            box = self._crop.make_params([framed])
            flipped = bool(torch.rand(1) < self._flip)
        cropped = self._crop.transform(framed, box)
        return self._to_pixels(ImageOps.mirror(cropped) if flipped else cropped)

    def _frame(self, image: Image.Image) -> Image.Image:
        """Shape the image as the evaluation transform would, so that crops come from what it shows."""
        height, width = self._size
        if self._resize_mode == "shortest":
            return image
        if self._resize_mode == "longest":
            scale = max(image.width / width, image.height / height)
            canvas = (max(1, round(width * scale)), max(1, round(height * scale)))
            return ImageOps.pad(image, canvas, self._interpolation, color=(self._fill,) * 3)
        scale = max(1.0, min(image.width / width, image.height / height))
        return image.resize((round(width * scale), round(height * scale)), self._interpolation)


def view_seed(seed: int, key: str, view: int) -> int:
    """A 63-bit seed from the run's seed, the image's key and the view's number; stable over machines."""
    digest = hashlib.sha256(f"{seed}\0{key}\0{view}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

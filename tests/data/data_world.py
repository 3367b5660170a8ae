"""A stand-in for the backbone, and folders of tiny pictures."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from ogenlib.data import ImageSet, Item

CFG = {
    "size": (12, 12),
    "mode": "RGB",
    "mean": (0.48, 0.46, 0.41),
    "std": (0.27, 0.26, 0.28),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


class FakeClip(nn.Module):
    """A linear image tower with dropout (so eval mode matters) that counts calls and can kill itself."""

    def __init__(self, kill_at: int | None = None, weights: int = 0, cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.preprocess_cfg = cfg or CFG
        size = self.preprocess_cfg["size"]
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * size[0] * size[1], 8), nn.Dropout(0.5))
        with torch.no_grad():
            self.net[1].weight.normal_(generator=torch.Generator().manual_seed(weights))
            self.net[1].bias.zero_()
        self.preprocess = v2.Compose(
            [
                v2.Resize(size[0], interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(self.preprocess_cfg["mean"], self.preprocess_cfg["std"]),
            ]
        )
        self.device = torch.device("cpu")
        self.batches: list[Tensor] = []
        self.kill_at = kill_at

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        if len(self.batches) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches.append(pixels)
        features = self.net(pixels)
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def fingerprint(self) -> dict[str, Any]:
        weights = hashlib.sha256(self.net[1].weight.detach().numpy().tobytes()).hexdigest()[:16]
        return {"name": "fake", "weights_hash": weights, "preprocess": self.preprocess_cfg}


def write_pictures(root: Path, classes: dict[str, int], side: int = 20) -> None:
    """`root/class/00.png` ...: noise, so every file differs."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            seed = int.from_bytes(hashlib.sha256(f"{name}/{number}".encode()).digest()[:4], "big")
            pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")


def folder_images(root: Path) -> ImageSet:
    """All pictures under `root` as one set; domain `even` or `odd` by their number."""
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    items = [
        Item(file, label, ("even", "odd")[int(file.stem) % 2], file.relative_to(root).as_posix())
        for label, name in enumerate(names)
        for file in sorted((root / name).glob("*.png"))
    ]
    return ImageSet(items, names)

"""A small random model with two real towers, pictures of noise, and prompted hosts moved off their start."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.data import FeatureBank
from ogenlib.hosts import Batch, Host, build
from ogenlib.towers import Backbone

NAMES = ("dog", "red_apple", "train")
OTHERS = ("fox", "bus")
PROMPTED = ("vpt", "ivlp", "maple", "promptsrc")
VISION = {"image_size": 16, "patch_size": 8, "layers": 4, "width": 24, "head_width": 12}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_clip(
    vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """Four image layers, three text layers; every parameter off its special start value. The same one each time."""
    return _made_once(json.dumps({**VISION, **(vision or {})}), json.dumps({**TEXT, **(text or {})}), dtype)


@cache
def _made_once(vision: str, text: str, dtype: torch.dtype) -> Backbone:
    return new_clip(json.loads(vision), json.loads(text), dtype)


def new_clip(vision: dict[str, Any], text: dict[str, Any], dtype: torch.dtype = torch.float32) -> Backbone:
    """A model of its own, for those who change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cast = None if dtype == torch.float32 else dtype
        model = open_clip.model.CLIP(10, vision, text, cast_dtype=cast)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.1 * draw(*p.shape, seed=i))
        model.logit_scale.fill_(2.0)
    if cast is not None:
        open_clip.model.convert_weights_to_lp(model, dtype)
    return Backbone(model, _tokenizer(model.context_length), name="prompted-world")


@cache
def _tokenizer(length: int) -> Any:
    return open_clip.SimpleTokenizer(context_length=length)


def pixels(clip: Backbone, n: int = 5, seed: int = 0) -> Tensor:
    return draw(n, 3, *clip.image.image_size, seed=seed)


def batch(clip: Backbone, n: int = 5, seed: int = 0) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    return Batch(torch.arange(n) % len(NAMES), pixels=pixels(clip, n, seed), generator=draws)


def frozen_bank(clip: Backbone, n: int = 6) -> FeatureBank:
    """Frozen features of noise pictures, as training hands them to `prepare`."""
    return FeatureBank.from_features(clip.encode_image(pixels(clip, n)), torch.arange(n) % len(NAMES), NAMES, clip)


def moved(host: Host, size: float = 0.3) -> Any:
    """The host with every trained tensor moved away from its start."""
    with torch.no_grad():
        for i, p in enumerate(host.trainable().values()):
            p.add_(size * draw(*p.shape, seed=20 + i).to(p.device))
    return host


def made(name: str, clip: Backbone, **options: Any) -> Any:
    return moved(build(name, clip, NAMES, **options))


def steps(host: Host, count: int, lr: float = 0.02, seed: int = 0) -> list[float]:
    """Losses of a few optimizer steps on one batch, written out without the library's loop."""
    optimizer = torch.optim.AdamW(host.trainable().values(), lr)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = sum(host.losses(batch(host.clip, seed=seed)).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def image_rows(clip: Backbone, images: Tensor, layers: Tensor) -> Tensor:
    """Unit features of images with prompts `(depth, V, W)`, by the tower alone."""
    deep = layers[1:] if len(layers) > 1 else None
    return F.normalize(clip.image.encode(images, prompts=layers[0], deep=deep), dim=-1)


def text_rows(clip: Backbone, names: tuple[str, ...], layers: Tensor) -> Tensor:
    """Unit text features with prompts `(depth, M, W)`: every sentence on its own and whole."""
    rows = []
    for name in names:
        ids = clip.text.tokenize([" ".join(["x"] * layers.shape[1]) + f" {name.replace('_', ' ')}."])
        embeds = clip.text.embed(ids).clone()
        embeds[0, 1 : 1 + layers.shape[1]] = layers[0]
        rows.append(clip.text.encode(embeds, ids, deep=layers[1:] if len(layers) > 1 else None)[0])
    return F.normalize(torch.stack(rows), dim=-1)

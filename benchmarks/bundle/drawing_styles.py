"""Batched augmentations that redraw colour icons in other styles.

Shapes: `B` images of `(3, H, W)` in [0, 1] on a white background. Every function is a pure tensor
operation; randomness comes from an explicit generator. Pretraining sees only coloured sets, so outlines,
flat black drawings and inverted ones have to come from here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def luminance(x: Tensor) -> Tensor:
    """Rec. 601 luma, `(B, 1, H, W)`."""
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def edges(x: Tensor, width: int = 3) -> Tensor:
    """Morphological gradient (local maximum minus local minimum over colours), `(B, 1, H, W)`."""
    spread = F.max_pool2d(x, width, 1, width // 2) + F.max_pool2d(-x, width, 1, width // 2)
    return spread.amax(1, keepdim=True)


def ink(x: Tensor, gain: Tensor, width: int = 3) -> Tensor:
    """Soft black-line mask of the contours, `(B, 1, H, W)`; `gain` `(B, 1, 1, 1)` sets the threshold."""
    return ((edges(x, width) - gain) * 25).sigmoid()


def silhouette(x: Tensor) -> Tensor:
    """Soft mask of everything that is not background white, holes up to 5 px closed, `(B, 1, H, W)`."""
    mask = ((1 - x.amin(1, keepdim=True)) * 12 - 1.0).sigmoid()
    grown = F.max_pool2d(mask, 5, 1, 2)
    return -F.max_pool2d(-grown, 5, 1, 2)


def outlined(x: Tensor, gain: Tensor, strength: Tensor) -> Tensor:
    """Black contours over the colours (OpenMoji-like); `strength` `(B, 1, 1, 1)` fades the fill to white."""
    line = ink(x, gain)
    return (x * (1 - strength) + strength) * (1 - line)


def line_art(x: Tensor, gain: Tensor, width: int = 3) -> Tensor:
    """Black lines on white."""
    return (1 - ink(x, gain, width)).expand_as(x)


def stencil(x: Tensor, threshold: Tensor) -> Tensor:
    """Two-tone print: dark areas black, the rest white, contours kept."""
    dark = ((threshold - luminance(x)) * 20).sigmoid()
    return (1 - torch.maximum(dark, 0.9 * ink(x, threshold * 0.5))).expand_as(x)


def cutout(x: Tensor, gain: Tensor) -> Tensor:
    """White drawing on a black silhouette (inverted line art inside the shape)."""
    body = silhouette(x)
    bright = ((luminance(x) - (1 - gain)) * 20).sigmoid()
    return (1 - body * (1 - torch.maximum(ink(x, gain), bright))).expand_as(x)


def recolour(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random hue rotation, saturation, contrast and brightness, white background kept mostly white."""
    b = x.shape[0]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(b, 1, 1, 1, generator=generator) * (high - low) + low

    angle = draw(-0.5, 0.5).flatten() * math.pi * (torch.rand(b, generator=generator) < 0.4)
    cos, sin = angle.cos(), angle.sin()
    third, root = 1 / 3, math.sqrt(1 / 3)
    near, far = cos + (1 - cos) * third, (1 - cos) * third
    rotation = torch.stack(
        [
            near,
            far - root * sin,
            far + root * sin,
            far + root * sin,
            near,
            far - root * sin,
            far - root * sin,
            far + root * sin,
            near,
        ],
        1,
    ).view(b, 3, 3)
    y = torch.einsum("bij,bjhw->bihw", rotation, x - 1) + 1  # rotate about white: the page stays white
    grey = luminance(y)
    y = grey + (y - grey) * draw(0.4, 1.6)
    y = 1 - (1 - y) * draw(0.7, 1.3)
    return (y + draw(-0.06, 0.06)).clamp(0, 1)


def warp(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random scale, aspect, rotation, shift and (half the time) mirror, resampled to `size`; white outside."""
    b = x.shape[0]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(b, generator=generator) * (high - low) + low

    angle, zoom, aspect = draw(-0.3, 0.3), draw(0.85, 1.35), draw(-0.12, 0.12).exp()
    angle = angle * (torch.rand(b, generator=generator) < 0.6)
    # Mirroring would swap the meaning of arrows and pointing hands, so it is the rarer case.
    flip = torch.where(torch.rand(b, generator=generator) < 0.2, -1.0, 1.0)
    shear = draw(-0.1, 0.1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack(
        [
            torch.stack([cos * aspect * flip, -sin + shear, draw(-0.15, 0.15)], 1),
            torch.stack([sin * flip, cos / aspect, draw(-0.15, 0.15)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    # Sampling the complement makes zero padding mean white.
    return 1 - F.grid_sample(1 - x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def restyle(x: Tensor, generator: torch.Generator) -> Tensor:
    """Redraw each image in one random style; half of them stay coloured. `(B, 3, H, W)` -> the same."""
    b = x.shape[0]
    out = recolour(x, generator)
    choice = torch.rand(b, generator=generator)
    gain = torch.rand(b, 1, 1, 1, generator=generator) * 0.3 + 0.15
    level = torch.rand(b, 1, 1, 1, generator=generator)

    def put(low: float, high: float, style) -> None:  # type: ignore[no-untyped-def]
        rows = ((choice >= low) & (choice < high)).nonzero().flatten()
        if len(rows):
            out[rows] = style(rows).to(out.dtype)

    put(0.50, 0.56, lambda r: luminance(out[r]).expand(-1, 3, -1, -1))
    put(0.56, 0.70, lambda r: outlined(out[r], gain[r], level[r] * 0.6))
    put(0.70, 0.77, lambda r: line_art(x[r], gain[r]))
    put(0.77, 0.80, lambda r: line_art(x[r], gain[r], width=5))
    put(0.80, 0.87, lambda r: stencil(x[r], 0.25 + 0.5 * level[r]))
    put(0.87, 0.95, lambda r: cutout(x[r], gain[r]))
    put(0.95, 1.00, lambda r: 1 - out[r])
    return out.clamp(0, 1)

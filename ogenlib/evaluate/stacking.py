"""The constant of calibrated stacking, chosen without a test image, and curves small enough to keep.

"An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the Wild", Chao et al.,
ECCV 2016. https://arxiv.org/abs/1605.04253

Reproduced: a constant is taken from the logits of the names with images (`ogenlib.generators.stacking`).
Different: the paper chooses it on validation classes that were kept out of training. Here no class is kept out: in
seeded episodes a random half of the known names plays the unknown.
Known weakness: the host was trained on these very images and names, so its logits are better for them than they will
be for test images, and the constant is optimistic for the known names.

Notation: `N` images, `K` known names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ogenlib.generators import StackingCurve, stacking_curve

EPISODES = 20
MOST = 60  # points of a curve that is kept


def episodic_constant(
    known: Tensor, unknown: Tensor, labels: Tensor, generator: torch.Generator, episodes: int = EPISODES
) -> float | None:
    """What to take from the logits of names with images, so that the joint harmonic mean is largest over the episodes.

    Args:
        known: `(N, K)` logits of training images over the names that they are of.
        unknown: `(N, K)` those that the same names would have if there were no images of them.
        labels: `(N,)` into the K names.
        generator: draws which half plays the unknown, K / 2 names rounded down.

    Returns the middle of the first interval of the best constants, None where no episode has images on both sides.

    Raises:
        ValueError: shapes that do not fit.
    """
    if known.ndim != 2 or known.shape != unknown.shape or labels.shape != known.shape[:1]:
        raise ValueError(
            f"known {tuple(known.shape)}, unknown {tuple(unknown.shape)} and labels {tuple(labels.shape)} do not fit; "
            "pass (N, K), (N, K) and (N,)"
        )
    count = known.shape[1]
    curves = []
    for _ in range(episodes if count > 1 else 0):
        order = torch.randperm(count, generator=generator).to(known.device)
        rest, playing = order[count // 2 :], order[: count // 2]
        renamed = torch.empty_like(order)
        renamed[torch.cat([rest, playing])] = torch.arange(count, device=order.device)
        own = renamed[labels]
        if bool((own < len(rest)).all()) or not bool((own < len(rest)).any()):
            continue
        curves.append(stacking_curve(torch.cat([known[:, rest], unknown[:, playing]], dim=1), own, len(rest)))
    return _best(curves)


def _best(curves: list[StackingCurve]) -> float | None:
    """The middle of the first interval in which the mean of the harmonic means is largest."""
    if not curves:
        return None
    constants = torch.cat([curve.constants for curve in curves]).unique()
    total = torch.zeros_like(constants)
    for curve in curves:
        place = torch.searchsorted(curve.constants, constants, right=True) - 1
        a, b = curve.known[place], curve.unknown[place]
        total += 2 * a * b / (a + b).clamp(min=1e-12)
    good = total >= total.max() - 1e-9
    first = int(good.nonzero()[0])
    after = (~good[first:]).nonzero()
    low = float(constants[first])
    high = float(constants[first + int(after[0])]) if len(after) else math.inf
    if math.isinf(low) or math.isinf(high):  # nothing is right on one side, whatever the constant
        return 0.0
    return (low + high) / 2


def thinned(curve: StackingCurve, most: int = MOST) -> StackingCurve:
    """At most so many points of a curve, evenly along its length, both ends among them.

    With 60 of them the area moves by a few hundredths of a percent.
    """
    if len(curve.constants) <= most:
        return curve
    steps = curve.known.diff().abs() + curve.unknown.diff().abs()
    length = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    wanted = torch.linspace(0, float(length[-1]), most, dtype=length.dtype, device=length.device)
    kept = torch.searchsorted(length, wanted).clamp(max=len(length) - 1)
    kept[0], kept[-1] = 0, len(length) - 1
    kept = kept.unique()
    return StackingCurve(curve.constants[kept], curve.known[kept], curve.unknown[kept])

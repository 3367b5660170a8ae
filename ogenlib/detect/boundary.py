"""The boundary between known and unknown, learned from known classes alone.

Half of the known classes play unknown, the other half stay known, in several random divisions. What is left is a
linear discriminant between two clouds of evidence (few columns), so that nothing is fitted to a name or an image:

* with images, held-out images of the known half against images of the other half, which the class means of the
  division never saw; and features that a generator synthesizes from those names, where one is given;
* without images, features synthesized from the names: a name's embedding with the differences of other names around it,
  or a generator's features.

Notation: `N` images, `C` classes, `U` other names, `D` embedding, `E` columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.detect.evidence import Evidence, Means
from ogenlib.detect.images import ROWS, Images
from ogenlib.generators import ClassConditionalGenerator

MIN_CLASSES = 4  # two on each side of a division
# Without a division to learn from. Chosen on the validation tasks of benchmarks/ood/study.py.
WITHOUT_OTHERS = {"text": 1.0, "rival": 0.3, "image": 0.1}
WITH_OTHERS = {"text": 1.0, "rival": 1.0, "image": 0.1}
HALF = 512  # features synthesized from a half of the names at least: covariances of fewer vary with the seed


@dataclass(frozen=True)
class Plan:
    """How divisions are made; the fields are those of `OGENDetector`."""

    temperature: float
    image_temperature: float
    n_synth: int
    negatives: str
    repeats: int
    shrink: float
    spread: float
    seed: int


def separating_weights(known: list[Tensor], unknown: list[Tensor], shrink: float) -> Tensor | None:
    """Weights `(E,)`, none below 0, of the linear discriminant between pairs of `(N, E)`; the largest is 1.

    Differences of means and covariances of the known ones are averaged over the pairs. Correlations are shrunk by
    adding `shrink` to their diagonal. A column whose weight comes out negative is left out and the others weighed
    again: evidence for known classes must not count against them. None if nothing separates.
    """
    pairs = [(k.double(), u.double()) for k, u in zip(known, unknown, strict=True) if len(k) > 1 and len(u) > 0]
    if not pairs:
        return None
    covariance = torch.stack([torch.cov(k.T).reshape(k.shape[1], -1) for k, _ in pairs]).mean(dim=0)
    difference = torch.stack([k.mean(dim=0) - u.mean(dim=0) for k, u in pairs]).mean(dim=0)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    kept = deviation > 1e-9
    weights = torch.zeros_like(difference)
    while bool(kept.any()):
        d = deviation[kept]
        correlation = covariance[kept][:, kept] / d[:, None] / d
        correlation = correlation + shrink * torch.eye(len(d), dtype=d.dtype, device=d.device)
        solution = torch.linalg.solve(correlation, difference[kept] / d) / d
        if bool((solution >= 0).all()):
            weights[kept] = solution
            break
        kept = kept.clone()
        kept[kept.nonzero()[solution.argmin(), 0]] = False
    largest = weights.max()
    return (weights / largest).float() if bool(largest > 0) else None


def default_weights(evidence: Evidence) -> Tensor:
    """Weights `(E,)` where there are too few classes or images for a division."""
    table = WITHOUT_OTHERS if evidence.others is None else WITH_OTHERS
    return torch.tensor([table[c] for c in evidence.columns], device=evidence.classes.device)


def learn(
    classes: Tensor,
    others: Tensor | None,
    images: Images | None,
    generator: ClassConditionalGenerator | None,
    plan: Plan,
) -> tuple[Evidence, Tensor]:
    """The evidence of all classes, and weights `(E,)` of its columns."""
    means = None if images is None else Means.of(images.pieces(), classes)
    evidence = Evidence(classes, others, means, plan.temperature, plan.image_temperature)
    pairs = [] if len(classes) < MIN_CLASSES else list(_divisions(classes, others, images, generator, plan))
    weights = separating_weights([k for k, _ in pairs], [u for _, u in pairs], plan.shrink)
    return evidence, default_weights(evidence) if weights is None else weights.to(classes.device)


def _divisions(
    classes: Tensor,
    others: Tensor | None,
    images: Images | None,
    generator: ClassConditionalGenerator | None,
    plan: Plan,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Evidence `(N, E)` of known and of pseudo-unknown features, a pair for each half of each division."""
    draws = torch.Generator().manual_seed(plan.seed)
    for _ in range(plan.repeats):
        half = (torch.randperm(len(classes), generator=draws) % 2 == 0).to(classes.device)
        held = None if images is None else _held_out(images.labels, len(classes), draws)
        for stays in (half, ~half):
            names, away = classes[stays], classes[~stays]
            rivals = None if others is None else torch.cat([away, others])
            means, inside, outside = None, None, None  # masks of images
            if images is not None and held is not None:
                known, number = stays[images.labels], stays.cumsum(0) - 1
                means = Means.of(((z, number[y]) for z, y in images.pieces(known & ~held)), names)
                inside, outside = known & held, ~known if plan.negatives != "synthesized" else None
            unlike = like = names[:0]
            if images is None or plan.negatives != "held-out":
                unlike = _named_features(away, classes, generator, plan, draws)
            if inside is None:
                like = _named_features(names, classes, generator, plan, draws)
            measure = Evidence(names, rivals, means, plan.temperature, plan.image_temperature)
            yield _evidence(measure, images, inside, like), _evidence(measure, images, outside, unlike)


def _evidence(measure: Evidence, images: Images | None, chosen: Tensor | None, named: Tensor) -> Tensor:
    """Columns `(N + R, E)` of the images in a mask, and then of features `(R, D)` made from names."""
    real = iter(()) if images is None or chosen is None else images.units(chosen)
    count = len(named) + (0 if chosen is None else int(chosen.sum()))
    # Made at once: many small results between what is freed would leave holes that nothing else fits into.
    columns, start = torch.empty(count, len(measure.columns), device=named.device), 0
    for piece in chain(real, named.split(ROWS)):
        columns[start : start + len(piece)] = measure(piece)
        start += len(piece)
    return columns


def _held_out(y: Tensor, classes: int, draws: torch.Generator) -> Tensor:
    """Mask `(N,)`: a random quarter of each class, one at least; none of a class with a single image."""
    order = torch.argsort(torch.rand(len(y), generator=draws, dtype=torch.float64).to(y.device) + y)
    count = torch.bincount(y, minlength=classes)
    place = torch.empty_like(y)
    place[order] = torch.arange(len(y), device=y.device) - (count.cumsum(0) - count)[y[order]]
    share = torch.where(count > 1, (count // 4).clamp(min=1), torch.zeros_like(count))
    return place < share[y]


def _named_features(
    names: Tensor, all_names: Tensor, generator: ClassConditionalGenerator | None, plan: Plan, draws: torch.Generator
) -> Tensor:
    """Synthesized unit features `(R, D)`, `n_synth` of a name or as many more as make `HALF`."""
    each = max(plan.n_synth, -(-HALF // len(names)))
    if generator is not None:
        return generator.synthesize(names, each, generator=draws).to(names)
    z = names.repeat_interleave(each, dim=0)
    first, second = (torch.randint(len(all_names), (len(z),), generator=draws).to(names.device) for _ in range(2))
    return F.normalize(z + plan.spread * (all_names[first] - all_names[second]), dim=-1)

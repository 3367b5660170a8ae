"""How much the densities of classes are to count beside zero-shot, chosen on the known classes alone.

In an episode a part of the known classes plays the unknown: its images are hidden from `fit_densities` and its names
are all that is known of it. Of the other classes some images are kept out. What gives these images the largest AUSUC
(`ogenlib.generators.stacking`), on average over episodes, is chosen: the shrinkage, and the weight of the discriminant.
No test image and no unknown class is looked at, and no host: one that learned from the images that are
kept out here would seem better than it is.

Notation: `N` images, `V` views, `C` known classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ogenlib.generators.checks import unit
from ogenlib.generators.density import SHRINKAGE, fit_densities
from ogenlib.generators.stacking import ausuc

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
SHRINKAGES = (0.1, 0.3, 0.6)
HIDDEN, KEPT_OUT = 0.5, 0.25  # shares of the classes, and of the other classes' images
FEWEST = 4  # classes: with fewer there are none to hide and none to tell apart


@dataclass(frozen=True)
class EvidenceSettings:
    """What `choose_evidence` chose.

    Attributes:
        shrinkage: of `fit_densities`.
        weight: of the discriminant beside zero-shot logits, where both spread alike over the classes.
        scale: what makes the discriminant spread so: the ratio of the two spreads, on images that were kept out.
        ausuc: in percent, mean over the episodes, of zero-shot alone and with the discriminant; None where nothing
            was chosen, for there are too few classes or images.
    """

    shrinkage: float
    weight: float
    scale: float
    ausuc: tuple[float, float] | None = None


@dataclass(frozen=True)
class Episode:
    """Indices of images, with the classes in the episode's order, the `seen` that play the known first."""

    classes: Tensor
    seen: int
    train: Tensor
    test: Tensor


def divide(labels: Tensor, n_classes: int, generator: torch.Generator) -> Episode:
    """One episode over images with these labels `(N,)`."""
    order = torch.randperm(n_classes, generator=generator)
    seen = n_classes - max(1, min(round(HIDDEN * n_classes), n_classes - 2))
    train: list[Tensor] = []
    test: list[Tensor] = []
    for place, c in enumerate(order.tolist()):
        own = (labels == c).nonzero()[:, 0]
        if place >= seen:
            test.append(own)
            continue
        own = own[torch.randperm(len(own), generator=generator)]
        out = max(1, round(KEPT_OUT * len(own))) if len(own) > 1 else 0
        test.append(own[:out])
        train.append(own[out:])
    return Episode(order, seen, torch.cat(train), torch.cat(test))


def choose_evidence(
    features: Tensor,
    labels: Tensor,
    embeddings: Tensor,
    logit_scale: float,
    generator: torch.Generator,
    *,
    episodes: int = 10,
    weights: Sequence[float] = WEIGHTS,
    shrinkages: Sequence[float] = SHRINKAGES,
) -> EvidenceSettings:
    """Settings for the densities of these classes.

    Args:
        features: `(N, D)`, or `(N, V, D)` with several views of an image.
        labels: `(N,)`, indices into `embeddings`.
        embeddings: `(C, D)` zero-shot weights of the known names.
        logit_scale: of cosines, exponentiated.
        generator: of the episodes.
        episodes: how many.
        weights, shrinkages: what is tried; of equals the first.

    Raises:
        ValueError: what `fit_densities` refuses.
    """
    images = features[:, None] if features.ndim == 2 else features
    several = int((torch.bincount(labels, minlength=len(embeddings)) > 1).sum())
    if len(embeddings) < FEWEST or several < len(embeddings):
        return EvidenceSettings(SHRINKAGE, 0.0, 1.0)
    areas = torch.zeros(len(shrinkages), len(weights), dtype=torch.float64)
    scales = torch.zeros(len(shrinkages), dtype=torch.float64)
    for _ in range(episodes):
        episode = divide(labels.cpu(), len(embeddings), generator)
        for place, (ratio, by_weight) in enumerate(
            _areas(images, labels, embeddings, logit_scale, episode, shrinkages, weights)
        ):
            areas[place] += by_weight / episodes
            scales[place] += ratio / episodes
    place, chosen = divmod(int(areas.argmax()), len(weights))
    alone = areas[:, list(weights).index(0.0)].mean() if 0.0 in weights else areas.new_tensor(torch.nan)
    return EvidenceSettings(
        shrinkages[place], weights[chosen], float(scales[place]), (float(alone), float(areas[place, chosen]))
    )


def _areas(
    images: Tensor,
    labels: Tensor,
    embeddings: Tensor,
    logit_scale: float,
    episode: Episode,
    shrinkages: Sequence[float],
    weights: Sequence[float],
) -> Iterator[tuple[float, Tensor]]:
    """For each shrinkage: the scale of the discriminant, and AUSUC for each weight."""
    to_place = torch.empty_like(episode.classes)
    to_place[episode.classes] = torch.arange(len(to_place))
    own, seen = to_place.to(labels.device)[labels], episode.seen
    names = unit(embeddings)[episode.classes.to(embeddings.device)]
    train, test = episode.train.to(labels.device), episode.test.to(labels.device)
    z = unit(images[test, 0])
    zero_shot = logit_scale * z @ names.T
    fitted = fit_densities(images[train], own[train], names[:seen])
    means = torch.cat([fitted.means, fitted.predict(names[seen:])])
    for shrinkage in shrinkages:
        evidence = replace(fitted, shrinkage=shrinkage).discriminant(means)(z)
        ratio = float(zero_shot.std(dim=1).mean() / evidence.std(dim=1).mean())
        areas = [ausuc(zero_shot + weight * ratio * evidence, own[test], seen) for weight in weights]
        yield ratio, torch.tensor(areas, dtype=torch.float64)

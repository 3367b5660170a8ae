"""From banks to batches: what a host is trained and tested on, features or pixels.

Notation: `N` images, `B` images a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ogenlib.data import FeatureBank, ImageSet, PixelBank
from ogenlib.hosts import Batch, Host

Bank = FeatureBank | PixelBank


def load_bank(host: Host | type[Host], clip: Any, images: ImageSet, views: int = 1, **options: Any) -> Bank:
    """The bank this host learns from: pixels where it changes the image side, features otherwise.

    options: those that `FeatureBank.extract` and `PixelBank.load` share (seed, augment, skip_bad, progress).
    """
    make = FeatureBank.extract if host.uses_cached_features else PixelBank.load
    return make(clip, images, views, **options)


def check_bank(host: Host, bank: Any) -> None:
    """ValueError for features where the host needs pixels, and for what another backbone made."""
    if isinstance(bank, PixelBank):
        bank.check_preprocess(host.clip)
        return
    if not host.uses_cached_features:
        raise ValueError(
            f"{host.info.name} changes the image side, so features of the frozen one ({bank!r}) are of no use to it; "
            "pass pixels: PixelBank.load(clip, images, views=8)"
        )


@dataclass(frozen=True)
class TrainingData:
    """The images of a host's names.

    features: (N, V, D), or None where neither the host nor its preparation reads them.
    pixels: the same images and views, or None for a host on cached features.
    """

    features: FeatureBank | None
    pixels: PixelBank | None

    @property
    def bank(self) -> Bank:
        """What steps are drawn from."""
        bank = self.features if self.pixels is None else self.pixels
        assert bank is not None
        return bank

    def __len__(self) -> int:
        return len(self.bank)

    def batch(self, indices: Tensor, mine: Tensor, generator: torch.Generator) -> Batch | None:
        """The images `indices[mine]` of a step's `indices`; None for an empty share.

        Views are drawn for the whole step whatever the share: the split must not change the draws.
        """
        bank = self.bank
        views = bank.draw(len(indices), generator)
        if not len(mine):
            return None
        total, indices, views = len(indices), indices[mine], views[mine]
        return Batch(
            bank.labels[indices.to(bank.labels.device)],
            features=None if self.features is None else self.features.pick(indices, views),
            pixels=None if self.pixels is None else self.pixels.pixels(indices, views),
            generator=generator,
            total=total,
            rows=indices.to(bank.labels.device),
        )


def training_data(host: Host, bank: Bank) -> TrainingData:
    """The images of the host's names on its device, in the form it needs.

    A host on cached features gets the features of a `PixelBank`. One that reads pixels gets features of the same
    views besides where its losses compare with them (`reads_frozen`) or it prepares itself with a bank of features:
    they are there then, and save its losses and OGEN's a pass of the frozen tower.

    Raises:
        ValueError: a bank of features for a host that needs pixels, a bank of another backbone, or a class without
            images.
    """
    check_bank(host, bank)
    made_with = bank.fingerprint.get("backbone", {}).get("weights_hash")
    if made_with is not None and made_with != host.clip.weights_hash:
        raise ValueError(
            f"the bank was made with weights {made_with}, the host has {host.clip.weights_hash}; "
            "make it again with FeatureBank.extract(clip, data)"
        )
    data = bank.select(host.names)
    counts = torch.bincount(data.labels.cpu(), minlength=len(host.names))
    empty = [n for n, count in zip(host.names, counts.tolist(), strict=True) if count == 0]
    if empty:
        raise ValueError(f"no training images for {len(empty)} classes: {empty[:5]}; add some or drop the names")
    data = data.to(host.device)
    if isinstance(data, FeatureBank):
        return TrainingData(data, None)
    reads = host.uses_cached_features or host.reads_frozen or host.prepares
    features = data.frozen(host.clip) if reads else None
    return TrainingData(features, None if host.uses_cached_features else data)


def test_batches(host: Host, data: Bank | ImageSet, batch_size: int) -> Iterator[Batch]:
    """All images in order, in their first view, with labels of zero.

    Raises:
        ValueError: features for a host that needs pixels, or pixels for another backbone.
    """
    if not isinstance(data, ImageSet):
        check_bank(host, data)
    elif host.uses_cached_features:
        data = FeatureBank.extract(host.clip, data, batch_size=batch_size)
    for start in range(0, len(data), batch_size):
        indices = range(start, min(start + batch_size, len(data)))
        labels = torch.zeros(len(indices), dtype=torch.long, device=host.device)
        if isinstance(data, FeatureBank):
            yield Batch(labels, features=data.features[indices.start : indices.stop, 0].float().to(host.device))
        elif isinstance(data, PixelBank):
            pixels = data.pixels(torch.tensor(indices), torch.zeros(len(indices), dtype=torch.long))
            yield Batch(labels, pixels=pixels.to(host.device))
        else:
            pixels = torch.stack([host.clip.preprocess(data.open(i)) for i in indices])
            yield Batch(labels, pixels=pixels.to(host.device))

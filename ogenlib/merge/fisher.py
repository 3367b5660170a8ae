"""How sure a trained host is of each of its numbers: the diagonal of the Fisher information on a bank.

"Merging Models with Fisher-Weighted Averaging", Matena & Raffel, NeurIPS 2022. https://arxiv.org/abs/2111.09832

Reproduced: the mean over images of the squared gradient of ``log p(y | x)``, with `y` drawn from the model's own
prediction, or all `y` weighted by it.
Different: `y` may be the labels instead (the empirical Fisher), which costs the same and is no estimate of it.

Notation: `N` images, `C` classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ogenlib.hosts import Host
from ogenlib.train.batches import Bank, training_data

TARGETS = ("drawn", "expected", "labels")
IMAGES = 512  # Matena & Raffel find that a few hundred examples are enough


def diagonal_fisher(
    host: Host, bank: Bank, *, images: int | None = IMAGES, targets: str = "drawn", seed: int = 0
) -> dict[str, Tensor]:
    """One tensor for each of `host.trainable()`, of its shape, fp32: for `ogenlib.merge.states.fisher_merge`.

    A gradient of one image at a time, and of one class of it with ``expected``: `images` (times `C`) backward passes.

    Args:
        bank: training images of the host's names, features or pixels as it needs them; their first view is used.
        images: how many are drawn from the bank; None for all.
        targets: ``drawn`` from the prediction, ``expected`` over it, or the bank's ``labels``.
        seed: of the images and targets drawn.

    Raises:
        ValueError: unknown targets, fewer than one image, nothing trainable, or a bank the host cannot read.
    """
    if targets not in TARGETS:
        raise ValueError(f"targets={targets!r}: must be one of {', '.join(TARGETS)}")
    if images is not None and images < 1:
        raise ValueError(f"images={images}: must be 1 or more, or None for all")
    parameters = host.trainable()
    if not parameters:
        raise ValueError(f"{host.info.name} has nothing to train, so no gradient has a square")
    data = training_data(host, bank)
    draws = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(data), generator=draws)[:images]
    host.eval()
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    for index in indices.split(1):
        batch = data.batch(index, torch.tensor([0]), draws)
        assert batch is not None  # the share is the one image
        with torch.enable_grad():
            z = host.image_features(batch)
            logs = host.logits(z, host.class_weights(z=z)).float().log_softmax(-1)[0]
        for label, weight in _labels(logs, targets, batch.labels, draws):
            _add_squares(total, parameters, logs[label], weight / len(indices))
    return total


def _labels(logs: Tensor, targets: str, given: Tensor, draws: torch.Generator) -> list[tuple[int, float]]:
    """(label, weight) of the log-probabilities `(C,)` whose gradients count."""
    if targets == "labels":
        return [(int(given[0]), 1.0)]
    chances = logs.detach().cpu().exp()
    if targets == "expected":
        return list(enumerate(chances.tolist()))
    return [(int(torch.multinomial(chances, 1, generator=draws)), 1.0)]


def _add_squares(total: dict[str, Tensor], parameters: dict[str, Any], log: Tensor, weight: float) -> None:
    gradients = torch.autograd.grad(log, list(parameters.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            total[name] += weight * gradient.detach().float() ** 2

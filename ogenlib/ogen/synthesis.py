"""Where OGEN's synthesized features come from: a generator trained first, or one that trains along.

Notation: `N` images, `V` views, `C` known classes, `U` unknown classes, `D` embedding, `S` synthesized features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ogenlib.generators import (
    ClassConditionalGenerator,
    class_neighbours,
    fit_generator,
    regression_loss,
    start_generator,
)
from ogenlib.ogen.branches import Branches, image_neighbours, synthesize_branches
from ogenlib.ogen.config import OGENConfig


class Synthesizer:
    """Synthesizes features of known and unknown classes, class `i < C` known.

    A known class is synthesized from its neighbours, itself left out. Nothing here sees an image of an unknown class.

    Args:
        features, labels: of images of the known classes, `(N, V, D)` and `(N,)`.
        embeddings: zero-shot weights `(C + U, D)`, known classes first.
        seed: of the generator's start and training, and of the features that are kept.
    """

    def __init__(self, config: OGENConfig, features: Tensor, labels: Tensor, embeddings: Tensor, seed: int) -> None:
        if config.generator is None:
            raise ValueError("generator=None: there is nothing to synthesize with")
        self.config, self.embeddings = config, embeddings
        views = features.shape[1]
        self.n_known = int(labels.max()) + 1
        known = embeddings[: self.n_known]
        settings = {"k": config.k, "heads": config.heads, "dropout": config.dropout, "spread": config.spread}
        bank = (features.flatten(0, 1).float(), labels.repeat_interleave(views), known, config.generator)
        self.generator: ClassConditionalGenerator
        if config.joint:
            self.generator = start_generator(*bank, seed=seed, **settings)
        else:
            self.generator = fit_generator(*bank, seed=seed, iterations=config.iterations, **settings)
        own = class_neighbours(known, known, config.k, exclude_self=True)[0]
        neighbours = [own]
        if len(embeddings) > self.n_known:
            neighbours.append(class_neighbours(embeddings[self.n_known :], known, config.k)[0])
        self.neighbours = torch.cat(neighbours)
        if config.branches is not None:
            self.near_images = image_neighbours(self.generator.require_known().means, config.k)
        self.pool = None if config.joint else self._pool(seed)

    def _pool(self, seed: int) -> Tensor:
        """`(C + U, per_class, D)`."""
        draws = torch.Generator().manual_seed(seed)
        pool = self.generator.synthesize(
            self.embeddings, self.config.per_class, generator=draws, neighbours=self.neighbours
        )
        return pool.unflatten(0, (len(self.embeddings), self.config.per_class))

    def draw(self, classes: Tensor, draws: torch.Generator | None) -> Tensor:
        """Unit features `(S, D)` of `classes` `(S,)`, without gradient."""
        if self.pool is not None:
            chosen = torch.randint(self.pool.shape[1], (len(classes),), generator=draws)
            return self.pool[classes, chosen.to(classes.device)]
        return self.generator.synthesize(
            self.embeddings[classes], 1, generator=draws, neighbours=self.neighbours[classes]
        )

    def loss(self, batch_size: int, draws: torch.Generator | None) -> Tensor:
        """The generator's regression loss on the known classes, for a generator that trains along."""
        with self._training(draws) as source:
            return regression_loss(self.generator, batch_size, source)

    def branches(
        self, weights: Tensor, z: Tensor, labels: Tensor, draws: torch.Generator | None, *, redrawn: bool
    ) -> Branches:
        """What the released code synthesizes for images `z` `(B, D)` of known classes, with gradient.

        Args:
            weights: class weights of this step, known names first.
            redrawn: whether the neighbours that features are regressed to are drawn anew; the released code does so
                after its warm-up.
        """
        with self._training(draws) as source:
            noise = torch.rand(2, z.shape[1], generator=source).to(z.device)
            targets = noise[int(redrawn)]
            return synthesize_branches(self.generator, weights, z, labels, self.near_images, noise[0], targets)

    @contextmanager
    def _training(self, draws: torch.Generator | None) -> Iterator[torch.Generator]:
        """The generator in training inside, with a source of draws that a continued run finds again."""
        source = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=draws)))
        self.generator.train()
        device = self.embeddings.device
        # Dropout draws from torch's global state, which a continued run would not find again.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.random.manual_seed(source.initial_seed())
            yield source
        self.generator.eval()


def draw_labels(config: OGENConfig, n_known: int, n_names: int, draws: torch.Generator | None) -> Tensor:
    """`(S,)` into the names of a step, known ones first: which classes features are synthesized for."""
    low = n_known if n_names > n_known and config.synthesize == "unknown" else 0
    high = n_known if config.synthesize == "known" else n_names
    return torch.randint(low, high, (config.rows,), generator=draws)

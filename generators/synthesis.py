"""Synthesized features, chunk by chunk.

Every variant is affine in its values up to a final normalisation. So with `spread="residual"` the class means of
the neighbours go in, one mean per class comes out, and residuals give it the width of a cloud; random images as
values would count that width twice. With `spread="none"` random images go in, one by one.

Notation: `B` features, `U` unknown classes, `C` known classes, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ogenlib.generators.checks import unit
from ogenlib.generators.neighbours import class_neighbours
from ogenlib.generators.residuals import N_RANDOM, around_mean, draw_residuals

if TYPE_CHECKING:
    from ogenlib.generators.base import ClassConditionalGenerator

ATTENTION_ROWS = 8192  # features in one forward pass; 0.2 GB of keys, values and projections at D=512, K=3


def synthesize_chunks(
    model: ClassConditionalGenerator,
    class_embeddings: Tensor,
    n_per_class: int,
    generator: torch.Generator | None,
    chunk: int,
    grad: bool,
    known_embeddings: Tensor | None,
    neighbours: Tensor | None,
) -> Iterator[Tensor]:
    """Iterator of `(<= chunk, D)` unit features; arguments as in `ClassConditionalGenerator.iter_synthesize`."""
    known = model.require_known()
    device = known.features.device
    query = unit(class_embeddings.to(device)).to(known.features.dtype)
    keys = known.embeddings
    if known_embeddings is not None:
        keys = unit(known_embeddings.to(device)).to(known.features.dtype)
    if neighbours is None:
        neighbours, _ = class_neighbours(query.detach(), keys.detach(), model.k)
    draws = torch.Generator().manual_seed(_base_seed(generator))
    return _chunks(model, query, keys, neighbours.to(device), n_per_class, draws, chunk, grad)


def _base_seed(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _chunks(
    model: ClassConditionalGenerator,
    query: Tensor,
    keys: Tensor,
    neighbours: Tensor,
    n_per_class: int,
    draws: torch.Generator,
    chunk: int,
    grad: bool,
) -> Iterator[Tensor]:
    total = len(query) * n_per_class
    n_random = N_RANDOM if model.spread == "residual" else model.n_random
    for start in range(0, total, chunk):
        # One draw, in order: the numbers of a feature do not depend on where chunks begin.
        uniform = torch.rand(min(chunk, total - start), n_random, generator=draws).to(query.device)
        classes = torch.arange(start, start + len(uniform), device=query.device) // n_per_class
        # Not around the yield: the caller's own code must not run with gradients off.
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()), _evaluating(model):
            if model.spread == "residual":
                features = _with_residuals(model, query, keys, neighbours, classes, uniform)
            else:
                # Attention holds K keys and values for each feature: far more than the chunk that is asked for.
                pieces = zip(classes.split(ATTENTION_ROWS), uniform.split(ATTENTION_ROWS), strict=True)
                features = unit(torch.cat([model.sample(query[c], keys, neighbours[c], u) for c, u in pieces]))
        yield features


def _with_residuals(
    model: ClassConditionalGenerator, query: Tensor, keys: Tensor, neighbours: Tensor, classes: Tensor, uniform: Tensor
) -> Tensor:
    known = model.require_known()
    first, last = int(classes[0]), int(classes[-1])
    here = neighbours[first : last + 1]
    means = model(query[first : last + 1], keys[here], known.means[here])
    residuals = draw_residuals(known, neighbours[classes], uniform)
    return around_mean(known, means[classes - first], neighbours[classes], residuals)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the former modes after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

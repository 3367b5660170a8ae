"""Training of a generator on the known classes alone.

Every iteration divides the known classes at random into pseudo-known and pseudo-unknown. A real image of a
pseudo-unknown class is the target, and its neighbours are searched among the pseudo-known only. No function here
takes anything of a true unknown class.

Notation: `N` images, `C` known classes, `B` features a step, `K` neighbours, `D` embedding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ogenlib.generators.base import ClassConditionalGenerator, variant_class
from ogenlib.generators.checks import check_at_least, check_choice
from ogenlib.generators.known import KnownClasses
from ogenlib.generators.neighbours import SPACES, class_similarity, nearest
from ogenlib.generators.residuals import draw_residuals

RECORDS = 20  # entries of the history


def fit_generator(
    features: Tensor,
    labels: Tensor,
    class_embeddings: Tensor,
    variant: str = "joint",
    *,
    iterations: int = 500,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    held_out: float | None = None,
    by: str | None = None,
    **settings: Any,
) -> ClassConditionalGenerator:
    """A trained generator, in eval mode, on the device of `features`.

    AdamW with a cosine rate that ends at zero. Deterministic for a seed on one machine; torch's global random
    state is left as it was.

    Args:
        features: real image features `(N, D)` of known classes; brought to unit length.
        labels: indices `(N,)` into `class_embeddings`.
        class_embeddings: text embeddings `(C, D)` of the known classes; brought to unit length.
        variant: a name of `list_variants()`.
        iterations, batch_size, lr, weight_decay: this library's defaults.
        held_out: share of the known classes that is pseudo-unknown in an iteration, one class at least (this
            library's default: a quarter); 0 leaves out only the target's own class (the released code).
        by: space of the neighbours in training, see `class_neighbours`; text, or image for the released variant.
        settings: `k`, `heads`, `dropout`, `hidden`, `spread` of `ClassConditionalGenerator`.

    Raises:
        TypeError: not tensors, or an unknown setting.
        ValueError: unknown variant, bad shapes or values, a class without images, labels out of range, or more
            neighbours than the smallest set of pseudo-known classes has.
        FloatingPointError: the loss is not finite.
    """
    check_at_least("iterations", iterations, 1)
    check_at_least("batch_size", batch_size, 1)
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr={lr}: must be a positive number")
    model = start_generator(
        features, labels, class_embeddings, variant, seed=seed, held_out=held_out, by=by, **settings
    )
    model.training_settings.update(iterations=iterations, batch_size=batch_size, lr=lr, weight_decay=weight_decay)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters:
        device = model.require_known().features.device
        # Dropout draws from torch's global state; the fork gives it back.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            draws = torch.Generator().manual_seed(seed)
            optimizer = torch.optim.AdamW(parameters, lr, weight_decay=weight_decay)
            model.train()
            model.history = _train(model, optimizer, iterations, batch_size, draws)
    return model.eval()


def start_generator(
    features: Tensor,
    labels: Tensor,
    class_embeddings: Tensor,
    variant: str = "joint",
    *,
    seed: int = 0,
    held_out: float | None = None,
    by: str | None = None,
    **settings: Any,
) -> ClassConditionalGenerator:
    """An untrained generator that knows its classes, for training by `regression_loss` in a loop of one's own.

    Arguments and errors as in `fit_generator`.
    """
    kind = variant_class(variant)
    held_out = kind.held_out if held_out is None else held_out
    by = kind.neighbours_by if by is None else by
    check_choice("by", by, SPACES)
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out={held_out}: must be 0 or more and below 1")
    known = KnownClasses(features, labels, class_embeddings)
    device = known.features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # of the initial weights
        torch.manual_seed(seed)
        model = kind(known.dim, **settings).to(device)
    _n_pseudo_unknown(len(known), model.k, held_out)
    if model.spread == "residual":  # refuses a bank without residuals before any training
        draw_residuals(known, torch.zeros(1, 1, dtype=torch.long, device=device), torch.zeros(1, 2, device=device))
    model.known = known
    model.training_settings = {"seed": seed, "held_out": held_out, "by": by}
    return model.eval()


def _n_pseudo_unknown(n_known: int, k: int, held_out: float) -> int:
    """Pseudo-unknown classes an iteration; 0 where only the target's own class is left out."""
    n_unknown = max(1, int(held_out * n_known))
    candidates = n_known - n_unknown
    if k > candidates:
        raise ValueError(
            f"k={k} neighbours asked for; of {n_known} known classes {n_unknown} are held out in training, which "
            f"leaves {candidates} to choose from; pass k={max(candidates, 1)} or less, a smaller held_out "
            f"(now {held_out}), or more classes"
        )
    return n_unknown if held_out > 0 else 0


def _train(
    model: ClassConditionalGenerator,
    optimizer: torch.optim.Optimizer,
    iterations: int,
    batch_size: int,
    draws: torch.Generator,
) -> list[dict[str, float]]:
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    every = max(1, iterations // RECORDS)
    history: list[dict[str, float]] = []
    recent: list[Tensor] = []
    similarity = training_similarity(model)
    for iteration in range(1, iterations + 1):
        loss = regression_loss(model, batch_size, draws, similarity=similarity)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(loss.detach())
        if iteration % every == 0 or iteration == iterations:
            mean = float(torch.stack(recent).mean())
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at iteration {iteration}; lower lr")
            history.append({"iteration": iteration, "loss": mean})
            recent = []
    return history


def training_similarity(model: ClassConditionalGenerator) -> Tensor:
    """Similarities `(C, C)` of the known classes in the space of the training, with -inf on the diagonal."""
    known = model.require_known()
    by = model.training_settings["by"]
    similarity = class_similarity(known.embeddings, known.embeddings, image_means=known.means, by=by, same=True)
    return similarity.fill_diagonal_(-torch.inf)


def regression_loss(
    model: ClassConditionalGenerator, batch_size: int, draws: torch.Generator, *, similarity: Tensor | None = None
) -> Tensor:
    """The loss of one iteration: a new division of the known classes, `batch_size` targets; a scalar.

    Args:
        draws: a CPU generator.
        similarity: `training_similarity(model)`, where the caller keeps it.
    """
    known = model.require_known()
    similarity = training_similarity(model) if similarity is None else similarity
    device = similarity.device
    n_unknown = _n_pseudo_unknown(len(known), model.k, model.training_settings["held_out"])
    unknown, allowed = pseudo_split(similarity, n_unknown, draws)
    classes = unknown[torch.randint(len(unknown), (batch_size,), generator=draws)].to(device)
    target = known.images(classes, torch.rand(batch_size, generator=draws).to(device))
    neighbours = nearest(allowed, model.k)[0][classes]
    values = model.training_values(neighbours, draws)
    return model.training_loss(known.embeddings[classes], known.embeddings[neighbours], values, target)


def pseudo_split(similarity: Tensor, n_unknown: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pseudo-unknown classes (on the CPU) and similarities `(C, C)` with those classes' columns at -inf.

    Args:
        similarity: `(C, C)` with -inf on the diagonal.
        n_unknown: how many; 0 makes every class a target and only the diagonal excluded.
    """
    n_known = len(similarity)
    if n_unknown == 0:
        return torch.arange(n_known), similarity
    unknown = torch.randperm(n_known, generator=draws)[:n_unknown]
    return unknown, similarity.index_fill(1, unknown.to(similarity.device), -torch.inf)

"""Refusals shared by the generators: each names what was given, what is accepted and the fix.

Notation: `N` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_rows(name: str, vectors: Tensor, dim: int | None = None) -> None:
    """Refuse `vectors` unless it is a finite floating `(N, D)` tensor without vectors of zeros.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong shape, width or type, or a row (named) that has no direction.
    """
    if not isinstance(vectors, Tensor):
        raise TypeError(f"{name} is a {type(vectors).__name__}; pass a (rows, D) tensor, e.g. torch.as_tensor({name})")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"{name} has shape {tuple(vectors.shape)}; a non-empty (rows, D) tensor is needed")
    if not vectors.is_floating_point():
        raise ValueError(f"{name} is {vectors.dtype}; floating-point rows are needed: {name}.float()")
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(
            f"{name} is {vectors.shape[1]} wide and {dim} is needed; take both from the same model, which has one "
            "embedding width for images and class names"
        )
    values = vectors.detach()
    for problem, bad in (
        ("holds NaN or inf", ~torch.isfinite(values).all(dim=-1)),
        ("is all zeros and has no direction", (values == 0).all(dim=-1)),
    ):
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(f"{name}: row {first} {problem} ({int(bad.sum())} such rows); drop or recompute them")


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length one, in fp32 or wider."""
    return F.normalize(vectors if vectors.dtype == torch.float64 else vectors.float(), dim=-1)


def check_at_least(name: str, value: int, low: int) -> None:
    """Refuse an integer setting below `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r}: must be an integer of {low} or more")


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list."""
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(accepted)}")

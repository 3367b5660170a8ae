"""Refusals shared by the generators: each names what was given, what is accepted and the fix.

Notation: `N` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_rows(name: str, rows: Tensor, dim: int | None = None) -> None:
    """Refuse `rows` unless it is a finite floating `(N, D)` tensor without rows of zeros.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong shape, width or type, or a row (named) that has no direction.
    """
    if not isinstance(rows, Tensor):
        raise TypeError(f"{name} is a {type(rows).__name__}; pass a (rows, D) tensor, e.g. torch.as_tensor({name})")
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}; a non-empty (rows, D) tensor is needed")
    if not rows.is_floating_point():
        raise ValueError(f"{name} is {rows.dtype}; floating-point rows are needed: {name}.float()")
    if dim is not None and rows.shape[1] != dim:
        raise ValueError(
            f"{name} is {rows.shape[1]} wide and {dim} is needed; take both from the same model, which has one "
            "embedding width for images and class names"
        )
    values = rows.detach()
    for problem, bad in (
        ("holds NaN or inf", ~torch.isfinite(values).all(dim=-1)),
        ("is all zeros and has no direction", (values == 0).all(dim=-1)),
    ):
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(f"{name}: row {first} {problem} ({int(bad.sum())} such rows); drop or recompute them")


def unit(rows: Tensor) -> Tensor:
    """Rows of length one, in fp32 or wider."""
    return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


def check_at_least(name: str, value: int, low: int) -> None:
    """Refuse an integer setting below `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r}: must be an integer of {low} or more")


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list."""
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(accepted)}")

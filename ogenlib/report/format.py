"""Numbers and names as the report writes them.

Notation: a *pair* is `[mean, std]` in percent; None and NaN stand for "not measured" and are written as a dash.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ogenlib.hosts.registry import title
from ogenlib.utils.variant import Variant, words_of

__all__ = [
    "DASH", "MINUS", "Variant", "counted", "finite", "label", "mean_of", "number", "p_value", "plus_minus", "signed",
    "std_of",
]  # fmt: skip

DASH = "–"
MINUS = "−"


def finite(value: object) -> float | None:
    """The number, or None where it is missing, not a number or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def mean_of(value: object) -> float | None:
    """Of a pair, or of a bare number."""
    return finite((*value, None)[0] if isinstance(value, (list, tuple)) else value)


def std_of(value: object) -> float | None:
    """Of a pair; None for a bare number."""
    return finite((*value, None, None)[1]) if isinstance(value, (list, tuple)) else None


def number(value: object, digits: int = 1) -> str:
    """`12.3`; a real minus sign, never `-0.0`; a dash where there is no number."""
    known = finite(value)
    if known is None:
        return DASH
    return f"{round(known, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def signed(value: object, digits: int = 1) -> str:
    """`+12.3`, `−4.5`, `±0.0`; a dash where there is no number."""
    known = finite(value)
    if known is None:
        return DASH
    rounded = round(known, digits)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.{digits}f}"


def plus_minus(value: object, write: Callable[[object], str] = number) -> str:
    """`36.8 ± 0.7`, or the mean alone where there is no std (one seed); `write` writes the mean."""
    mean, std = mean_of(value), std_of(value)
    return write(mean) if mean is None or std is None else f"{write(mean)} ± {number(std)}"


def p_value(value: object) -> str:
    """`0.031`, `< 0.001`, or a dash."""
    known = finite(value)
    if known is None:
        return DASH
    return "< 0.001" if known < 0.001 else f"{known:.3f}"


def label(variant: Variant) -> str:
    """The host as its paper spells it, `+ OGEN` where it is on, and what a control is."""
    return title(variant.host) + " + OGEN" * variant.ogen + "".join(words_of(variant.control))


def counted(count: object, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"

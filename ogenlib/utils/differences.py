"""What differs between two JSON values, in words short enough for one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SHOWN = 60  # characters of a value
MISSING = "nothing"


def differences(saved: Any, asked: Any, name: str = "") -> Iterator[str]:
    """``name: saved X, asked Y`` for every place where two JSON values differ, and nothing for those that agree.

    Of lists of different lengths the lengths, of long texts the part around the first difference.
    """
    if isinstance(saved, dict) and isinstance(asked, dict):
        for key in dict.fromkeys((*saved, *asked)):
            place = f"{name}.{key}" if name else str(key)
            if key not in saved or key not in asked:
                yield f"{place}: saved {_shown(saved, key)}, asked {_shown(asked, key)}"
            else:
                yield from differences(saved[key], asked[key], place)
    elif isinstance(saved, list) and isinstance(asked, list) and len(saved) == len(asked):
        for i, (one, other) in enumerate(zip(saved, asked, strict=True)):
            yield from differences(one, other, f"{name}[{i}]")
    elif isinstance(saved, list) and isinstance(asked, list):
        yield f"{name}: saved {len(saved)} entries, asked {len(asked)}"
    elif isinstance(saved, str) and isinstance(asked, str) and saved != asked:
        start = 0 if max(len(saved), len(asked)) <= SHOWN else max(0, _alike(saved, asked) - 10)
        yield f"{name}: saved {_part(saved, start)}, asked {_part(asked, start)}"
    elif saved != asked:
        yield f"{name}: saved {_short(saved)}, asked {_short(asked)}"


def _shown(value: dict[str, Any], key: str) -> str:
    return _short(value[key]) if key in value else MISSING


def _alike(one: str, other: str) -> int:
    """Characters that two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _part(text: str, start: int) -> str:
    cut = repr(text[start : start + SHOWN])
    return ("..." if start else "") + cut + ("..." if len(text) > start + SHOWN else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

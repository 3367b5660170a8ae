"""Markdown tables, and how numbers and methods are written in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ogenlib.hosts import list_methods


def in_a_line(title: str) -> str:
    """A title inside a line of a table: one of plain words begins small."""
    words = title.partition(" (")[0]
    return title[0].lower() + title[1:] if words[1:].islower() else title


# As in reports, but for the teacher that the published rows have.
METHOD_NAMES = {
    **{info.name: in_a_line(info.title) for info in list_methods()},
    "promptkd": "PromptKD, zero-shot teacher",
}


def named(host: str, ogen: bool = False) -> str:
    """A method's name in a table."""
    return METHOD_NAMES.get(host, host) + " + OGEN" * ogen


def seeds_of(document: Mapping[str, Any], key: str = "seeds") -> str:
    """The seeds of a results file, one after another."""
    return ", ".join(map(str, document["protocol"][key]))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def spread(value: Sequence[float | None]) -> str:
    """`[mean, std]` as `mean ± std`; a single run has no std."""
    mean, std = value
    return number(mean) if mean is None or std is None else f"{mean:.1f} ± {std:.1f}"

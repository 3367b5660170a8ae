"""Markdown tables, and how numbers and methods are written in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ogenlib.hosts import list_methods
from ogenlib.report import format as report
from ogenlib.utils.variant import words_of

COLUMNS = {"base": "base", "new": "new", "H": "H", "joint_H": "joint H"}  # of tables, with their headings
MEASURES = {**COLUMNS, "ausuc": "AUSUC", "gate_auroc": "gate AUROC"}  # of tables with every measure


def in_a_line(title: str) -> str:
    """A title inside a line of a table: one of plain words begins small."""
    words = title.partition(" (")[0]
    return title[0].lower() + title[1:] if words[1:].islower() else title


# As in reports, but for the teacher that the published rows have.
METHOD_NAMES = {
    **{info.name: in_a_line(info.title) for info in list_methods()},
    "promptkd": "PromptKD, zero-shot teacher",
}


def named(host: str, ogen: bool = False, control: str = "") -> str:
    """A method's name in a table."""
    return METHOD_NAMES.get(host, host) + " + OGEN" * ogen + "".join(words_of(control))


def seeds_of(document: Mapping[str, Any], key: str = "seeds") -> str:
    """The seeds of a results file, one after another."""
    return ", ".join(map(str, document["protocol"][key]))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """As in reports, with a hyphen for their minus."""
    return _hyphens(report.number(value, digits)) + (unit if value is not None else "")


def whole(value: float | None) -> str:
    """`1,234`."""
    return report.DASH if value is None else f"{value:,.0f}"


def difference(value: float) -> str:
    """`+1.2`."""
    return f"{value:+.1f}"


def plus_minus(value: object, write: Callable[[Any], str] = report.number) -> str:
    """`[mean, std]` as `mean ± std`; a single run has no std."""
    return _hyphens(report.plus_minus(value, write))


def scores_of(entry: Mapping[str, Any], columns: Iterable[str] = COLUMNS) -> list[str]:
    """The cells of these columns."""
    return [plus_minus(entry[score]) for score in columns]


def over_seeds(document: Mapping[str, Any], what: str = "Means", more: str = "") -> str:
    """The line below a table of means."""
    return f"\n{what} over seeds {seeds_of(document)}, ± standard deviation.{more}\n"


def _hyphens(text: str) -> str:
    return text.replace(report.MINUS, "-")

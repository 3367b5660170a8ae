"""The look of the report: its CSS, HTML built from escaped pieces, and how numbers are written.

Notation: a *pair* is `[mean, std]` in percent; None and NaN stand for "not measured" and are written as a dash.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

DASH = "–"
MINUS = "−"

# Okabe-Ito colours, told apart under every common colour blindness; the dark set is their lighter half.
# `--base` and `--new` are the two sides, `--h0` ... `--h7` the hosts. plots.py writes these names into its SVGs.
CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1f24; --soft: #5c6470; --rule: #dfe3e8; --wash: #f4f6f8;
  --base: #0072b2; --new: #c24e00; --h0: #5c6470; --h1: #0072b2; --h2: #c24e00; --h3: #00805f; --h4: #a8508a;
  --h5: #9a7000; --h6: #3a8fc4; --h7: #1c1f24; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8eaed; --soft: #a3abb6; --rule: #323842;
  --wash: #1d2127; --base: #56b4e9; --new: #f08a3c; --h0: #a3abb6; --h1: #56b4e9; --h2: #f08a3c; --h3: #2fbf95;
  --h4: #dd93c3; --h5: #e0b83a; --h6: #8fd0f5; --h7: #e8eaed; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--soft); margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.finding { font-size: 1.7rem; line-height: 1.3; font-weight: 650; margin: 0 0 .8rem; max-width: 50rem;
  letter-spacing: -.01em; text-wrap: pretty; }
.soft, small, figcaption { color: var(--soft); }
small, figcaption { font-size: .84rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .38rem .85rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
thead th { color: var(--soft); vertical-align: bottom; font-size: .84rem; border-bottom: 2px solid var(--rule); }
th small { display: block; font-weight: 400; }
td small { display: block; line-height: 1.25; }
.best { font-weight: 700; }
.best small { font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--paper); }
tbody.group tr:not(:last-child) > * { border-bottom-color: transparent; }
tbody.group th { padding-top: .7rem; }
table.card td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.card th { width: 13rem; color: var(--soft); font-weight: 400; }
table.words td, table.words th { text-align: left; }
td.wide { white-space: normal; min-width: 14rem; }
.figures { display: grid; gap: 1.4rem 1.6rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  margin: 1rem 0; }
.figures.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.figures.single { grid-template-columns: minmax(0, 42rem); }
figure { margin: 0; min-width: 0; }
figure h3 { margin: 0 0 .2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; margin: .6rem 0 0; }
.key svg { display: inline-block; width: .85em; height: .85em; margin-right: .4em; vertical-align: -.05em; }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  margin: .8rem 0; }
.card-box { border: 1px solid var(--rule); border-radius: 8px; padding: .7rem .85rem; min-width: 0; }
.card-box strong { overflow-wrap: anywhere; }
.thumbs { display: flex; flex-wrap: wrap; gap: 4px; margin-top: .5rem; }
.thumbs img { width: 48px; height: 48px; object-fit: contain; background: #fff; border: 1px solid var(--rule);
  border-radius: 4px; }
.bar { display: flex; height: 6px; border-radius: 3px; background: var(--wash); margin: .35rem 0 .2rem; overflow: hidden; }
.bar span { background: var(--soft); }
.side { font-size: .72rem; font-weight: 600; border: 1px solid currentColor; border-radius: 3px; padding: 0 .3em;
  margin-left: .35em; white-space: nowrap; }
.side.base { color: var(--base); } .side.new { color: var(--new); }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; padding: .2rem 0; }
pre { background: var(--wash); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; font-size: .88rem; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; max-width: 50rem; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
@media (max-width: 600px) { body { padding: 1.2rem .9rem 3rem; } .finding { font-size: 1.3rem; }
  th, td { padding: .35rem .55rem; } table.card th { width: 8rem; white-space: normal; }
  th:first-child { max-width: 9.5rem; white-space: normal; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
@media print { details > * { display: block; } body { max-width: none; } }
"""


class Html(str):
    """Text that is markup already; every other string is escaped when it becomes part of a page."""

    __slots__ = ()


def escaped(child: object) -> Html:
    """`child` as markup: escaped (`& < > " '`) unless it is Html; None becomes nothing."""
    if child is None:
        return Html("")
    return child if isinstance(child, Html) else Html(html.escape(str(child), quote=True))


def tag(name: str, /, *children: object, cls: str = "", **attributes: object) -> Html:
    """One element; attribute names may use `_` for `-`; attributes that are None are left out."""
    given = {"class": cls or None, **attributes}
    text = "".join(f' {k.replace("_", "-")}="{escaped(v)}"' for k, v in given.items() if v is not None)
    if name in ("img", "meta", "br"):
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """Children one after the other, each escaped unless it is Html."""
    return Html("".join(escaped(child) for child in children))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, cls: str = "") -> Html:
    """A table that scrolls sideways when the window is narrow. The first cell of a row is its heading.

    A cell that is an Html string beginning with `<td` or `<th` is kept as it is (to carry a class).
    """
    body = tag("tbody", *[row(cells) for cells in rows])
    return frame(head, [body], cls=cls)


def frame(head: Sequence[object], bodies: Sequence[Html], *, cls: str = "") -> Html:
    """Head and ready `tbody` elements as a table that scrolls sideways; an empty head is left out."""
    top = tag("thead", tag("tr", *[tag("th", cell, scope="col") for cell in head])) if head else ""
    return tag("div", tag("table", top, *bodies, cls=cls), cls="scroll")


def row(cells: Sequence[object]) -> Html:
    """One table row whose first cell is a heading."""
    made: list[Html] = []
    for index, cell in enumerate(cells):
        if isinstance(cell, Html) and cell.startswith(("<td", "<th")):
            made.append(cell)
        else:
            made.append(tag("td", cell) if index else tag("th", cell, scope="row"))
    return tag("tr", *made)


def details(summary: object, *children: object, is_open: bool = False) -> Html:
    """A part that a reader unfolds."""
    return tag("details", tag("summary", summary), *children, open="open" if is_open else None)


def page(title: str, *body: object) -> str:
    """A whole document: no script, nothing loaded from anywhere."""
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("style", Html(CSS)),
        ]
    )
    parts = "\n".join(escaped(part) for part in body if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{parts}\n</body></html>\n'


def finite(value: Any) -> float | None:
    """The number, or None where it is missing, not a number or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def mean_std(value: Any) -> tuple[float | None, float | None]:
    """A pair, or a bare number, as (mean, std); either may be None."""
    if isinstance(value, (list, tuple)):
        both = [*value, None, None][:2]
        return finite(both[0]), finite(both[1])
    return finite(value), None


def number(value: Any, digits: int = 1) -> str:
    """`12.3`; a real minus sign, never `-0.0`; a dash where there is no number."""
    known = finite(value)
    if known is None:
        return DASH
    return f"{round(known, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def signed(value: Any, digits: int = 1) -> str:
    """`+12.3`, `−4.5`, `±0.0`; a dash where there is no number."""
    known = finite(value)
    if known is None:
        return DASH
    rounded = round(known, digits)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.{digits}f}"


def plus_minus(value: Any) -> str:
    """`36.8 ± 0.7`, or the mean alone where there is no std (one seed)."""
    mean, std = mean_std(value)
    return number(mean) if mean is None or std is None else f"{number(mean)} ± {number(std)}"


def p_value(value: Any) -> str:
    """`0.031`, `< 0.001`, or a dash."""
    known = finite(value)
    if known is None:
        return DASH
    return "< 0.001" if known < 0.001 else f"{known:.3f}"

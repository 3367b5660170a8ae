"""HTML from escaped pieces: what is not Markup already is escaped where it becomes part of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from markupsafe import Markup, escape

from ogenlib.report.format import Variant, label

# Okabe-Ito colours, told apart under every common colour blindness; the dark set is their lighter half.
# `--base` and `--new` are the two sides, `--h0` ... `--h7` the hosts. plots/ writes these names into its SVGs.
CSS = files("ogenlib.report").joinpath("style.css").read_text(encoding="utf-8")
PAGE = Markup('<!doctype html>\n<html lang="en"><head>{}</head>\n<body>\n{}\n</body></html>\n')
VOID = ("img", "meta", "br")  # elements that have no end


def tag(name: str, /, *children: object, cls: str = "", **attributes: object) -> Markup:
    """One element; attribute names may use `_` for `-`; attributes and children that are None are left out."""
    given = {"class": cls or None, **attributes}
    known = [(key.replace("_", "-"), value) for key, value in given.items() if value is not None]
    start = Markup("<{}{}>").format(name, join(Markup(' {}="{}"').format(*pair) for pair in known))
    return start if name in VOID else join([start, *children, Markup("</{}>").format(name)])


def join(children: Iterable[object]) -> Markup:
    """Children one after the other, each escaped (`& < > " '`) unless it is Markup; None becomes nothing."""
    return Markup("").join(escape(child) for child in children if child is not None)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, cls: str = "") -> Markup:
    """A table that scrolls sideways when the window is narrow. The first cell of a row is its heading.

    A cell that is Markup beginning with `<td` or `<th` is kept as it is (to carry a class).
    """
    body = tag("tbody", *[row(cells) for cells in rows])
    return frame(head, [body], cls=cls)


def frame(head: Sequence[object], bodies: Sequence[Markup], *, cls: str = "") -> Markup:
    """Head and ready `tbody` elements as a table that scrolls sideways; an empty head is left out."""
    top = tag("thead", tag("tr", *[tag("th", cell, scope="col") for cell in head])) if head else ""
    return tag("div", tag("table", top, *bodies, cls=cls), cls="scroll")


def row(cells: Sequence[object]) -> Markup:
    """One table row whose first cell is a heading."""
    tags: list[Markup] = []
    for index, cell in enumerate(cells):
        if isinstance(cell, Markup) and cell.startswith(("<td", "<th")):
            tags.append(cell)
        else:
            tags.append(tag("td", cell) if index else tag("th", cell, scope="row"))
    return tag("tr", *tags)


def section(title: str, intro: str, *children: object) -> Markup:
    """A heading, a paragraph below it (unless empty), and the rest."""
    return tag("section", tag("h2", title), tag("p", intro) if intro else None, *children)


def details(summary: object, *children: object, is_open: bool = False) -> Markup:
    """A part that a reader unfolds."""
    return tag("details", tag("summary", summary), *children, open="open" if is_open else None)


def definitions(terms: Mapping[str, str]) -> Markup:
    """What each term means."""
    return tag("dl", *[join([tag("dt", term), tag("dd", text)]) for term, text in terms.items()])


def page(title: str, *body: object) -> str:
    """A whole document: no script, nothing loaded from anywhere."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup("\n" + CSS)),
    ]
    return str(PAGE.format(join(head), Markup("\n").join(escape(part) for part in body if part)))


def host_rows(name: str, variants: Sequence[Variant], cells: Sequence[Sequence[object]]) -> Markup:
    """The hosts of one domain as a `tbody` below a line with the domain's name."""
    top = tag("tr", tag("th", name, colspan=1 + max(map(len, cells), default=0), scope="rowgroup"))
    return tag("tbody", top, *[row([label(v), *line]) for v, line in zip(variants, cells, strict=True)], cls="group")

"""How the report looks and writes: its CSS, HTML from escaped pieces, numbers, names, and its small tables.

Notation: a *pair* is `[mean, std]` in percent; None and NaN stand for "not measured" and are written as a dash.
What needs to look through the whole results document is in report.py.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ogenlib.hosts.registry import title

DASH = "–"
MINUS = "−"
THUMBNAIL = re.compile(r"data:image/(png|webp|jpeg|gif);base64,[A-Za-z0-9+/]+=*")
MAX_THUMBNAILS = 5
Variant = tuple[str, bool]  # host, with OGEN or without

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
td small.change { display: inline-block; min-width: 3.1em; }
.best { font-weight: 700; }
.best small { font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--paper); }
tbody.group tr:not(:last-child) > * { border-bottom-color: transparent; }
tbody.group th { font-weight: 400; } tbody.group th[colspan] { font-weight: 700; padding-top: .8rem; }
tbody.group tr:not(:first-child) th { padding-left: .9rem; }
th code { font-weight: 400; }
table.card td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.card th { width: 13rem; color: var(--soft); font-weight: 400; }
table.words td, table.words th { text-align: left; }
td.wide { white-space: normal; min-width: 14rem; }
.figures { display: grid; gap: 1.4rem 1.6rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  margin: 1rem 0; }
.figures.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.figures.single { grid-template-columns: minmax(0, 42rem); }
figure { margin: 0; min-width: 0; }
figure h3 { margin: 0 0 .2rem; }
h3 small { font-weight: 400; margin-left: .5em; }
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
.bar { display: flex; height: 6px; border-radius: 3px; background: var(--wash); margin: .35rem 0 .2rem;
  overflow: hidden; }
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
  th:first-child { max-width: 9.5rem; min-width: 6.4rem; white-space: normal; }
  td small.change { display: block; } dl { grid-template-columns: 1fr; gap: 0; }
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


def section(title: str, intro: str, *children: object) -> Html:
    """A heading, a paragraph below it (unless empty), and the rest."""
    return tag("section", tag("h2", title), tag("p", intro) if intro else None, *children)


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


def label(variant: Variant) -> str:
    """The host as its paper spells it, `+ OGEN` where it is on."""
    return title(variant[0]) + (" + OGEN" if variant[1] else "")


def harmonic(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def counted(count: object, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


SIDE_TERMS = {  # of a protocol: what Base is, what New is, what competes for Joint H
    "cross-dataset": ("accuracy on test images of the dataset of training, choosing among its names",
                      "accuracy on images of another dataset, choosing among that dataset's names",
                      "the names of both datasets"),
    "domain-generalization": ("accuracy on test images of the domain of training",
                              "accuracy on images of another domain, choosing among its names",
                              "all names that were trained"),
    "domain-shift": ("accuracy on test images of the reference domain",
                     "accuracy on images of another domain, choosing among its names",
                     "all names that were trained"),
    "few-shot": ("accuracy on all test images, choosing among all names", "", ""),
}  # fmt: skip
BASE_TO_NEW_TERMS = (
    "accuracy on the names that were trained, choosing among base names only",
    "accuracy on names no image was trained for, choosing among new names only",
    "base and new names",
)


def glossary(protocol: str = "base-to-new") -> Html:
    base, new, joint = SIDE_TERMS.get(protocol, BASE_TO_NEW_TERMS)
    if not new:
        return tag("dl", tag("dt", "Base"), tag("dd", base))
    terms = {
        "Base": base,
        "New": new,
        "H": "harmonic mean of base and new: high only if both are. Per seed and then averaged, or of the two averages",
        "Joint H": f"the same, when every image has to choose among {joint} together",
        "ECE": "expected calibration error in the joint choice: how far confidence is from accuracy",
    }
    return tag("dl", *[join([tag("dt", term), tag("dd", text)]) for term, text in terms.items()])


def side_chip(side: object) -> Html | None:
    return tag("span", side, cls=f"side {side}") if side in ("base", "new") else None


def items(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [item for item in results.get(key) or [] if isinstance(item, Mapping)]


def setting_of(item: Mapping[str, Any]) -> tuple[str, str]:
    return str(item.get("dataset") or ""), str(item.get("domain") or "")


def variant_of(item: Mapping[str, Any]) -> Variant:
    return str(item.get("host") or "?"), bool(item.get("ogen"))


def share(pair: Mapping[str, Any]) -> float:
    return pair["count"] / pair["of"] if pair["of"] else 0.0


def confusion_card(domain: str, true: str, predicted: str, pair: Mapping[str, Any]) -> Html:
    """A pair of classes; `domain` is named unless empty. Pictures that are not inline are left out."""
    sides = pair["sides"]
    percent = 100 * share(pair)
    counts = f"{pair['count']:.0f} of {pair['of']:.0f} images" if pair["of"] else counted(int(pair["count"]), "image")
    counts += f" over {len(pair['seeds'])} seeds" if len(pair["seeds"]) > 1 else ""
    counts += f", {domain}" if domain else ""
    safe = [text for text in pair["thumbnails"] if THUMBNAIL.fullmatch(text)][:MAX_THUMBNAILS]
    images = [tag("img", src=Html(text), alt=true, loading="lazy", width=48, height=48) for text in safe]
    return tag(
        "div",
        tag("div", tag("strong", true), side_chip(sides.get("true_is"))),
        tag("div", "→ ", predicted, side_chip(sides.get("predicted_is"))),
        tag("div", tag("span", style=f"width:{percent:.1f}%"), cls="bar"),
        tag("small", f"{number(percent)} % · {counts}"),
        tag("div", *images, cls="thumbs") if images else None,
        cls="card-box",
    )


def class_cell(item: Mapping[str, Any]) -> Html:
    joint = item.get("joint_accuracy")
    small = tag("small", "joint ", plus_minus(joint)) if mean_std(joint)[0] is not None else None
    return tag("td", plus_minus(item.get("accuracy")), small)


def tests_table(tests: Iterable[Mapping[str, Any]]) -> Html:
    """Paired tests; `a` and `b` are hosts, `coop+ogen` style where OGEN is on."""

    def named(value: object) -> str:
        host, _, rest = str(value).replace(" ", "").partition("+")
        return label((host, bool(rest))) if rest.lower() in ("", "ogen") else str(value)

    rows = [
        [
            f"{named(t.get('a'))} {MINUS} {named(t.get('b'))}",
            " / ".join(str(t[k]) for k in ("dataset", "domain") if t.get(k)) or DASH,
            str(t.get("metric") or DASH).replace("_", " "),
            signed(t.get("difference")),
            p_value(t.get("p")),
            t.get("n", DASH),
        ]
        for t in tests
    ]
    return table(["Compared", "Domain", "Metric", "Difference", "p", "Pairs"], rows)


def full_mean(values: Iterable[float | None]) -> float | None:
    """The mean, None unless every value was measured: a mean over fewer is not comparable."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return sum(known) / len(known) if known and len(known) == len(listed) else None


def host_rows(name: str, variants: Sequence[Variant], cells: Sequence[Sequence[object]]) -> Html:
    """The hosts of one domain as a `tbody` below a line with the domain's name."""
    top = tag("tr", tag("th", name, colspan=1 + max(map(len, cells), default=0), scope="rowgroup"))
    return tag("tbody", top, *[row([label(v), *line]) for v, line in zip(variants, cells, strict=True)], cls="group")

"""Pictures of docs/robust.md: the way from zero-shot to the end of each training, as WiSE-FT goes it.

Notation: a *path* is the curve of one method, mean over seeds: (alpha, ID, OOD or zero-shot), alphas rising.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.markdown import named
from benchmarks.common.places import IMAGES
from benchmarks.robust.rates import FAMILIES
from ogenlib.report.html import CSS
from ogenlib.report.plots import lines as plots
from ogenlib.report.sections.robust import HEIGHTS, draw_path, end_of, path_of
from ogenlib.results.types import Robustness, RobustnessSummary
from ogenlib.utils.files import atomic_write
from ogenlib.utils.variant import Variant

REFERENCE = ("full_ft", False)
PAPERS = ("lipsum_ft", "r_adapter", "flyp", "arf")  # beside full fine-tuning in the first picture, with OGEN in another
Key = tuple[str, bool]


def pictures(document: Mapping[str, Any]) -> dict[str, list[Key]]:
    """File name -> methods in it, full fine-tuning first; at most as many as there are colours."""
    methods = list(dict.fromkeys((row["host"], row["ogen"]) for row in document["rows"] if row.get("curve")))
    rest = [key for key in methods if not key[1] and key != REFERENCE and key[0] not in PAPERS]
    groups = {
        "robust-methods": [key for key in methods if not key[1] and key[0] in PAPERS],
        "robust-ogen": [key for key in methods if key[1]],
        "robust-baselines": [key for key in rest if FAMILIES.get(key[0]) != "flyp"],
        "robust-contrastive": [key for key in rest if FAMILIES.get(key[0]) == "flyp"],
    }
    first = [REFERENCE] if REFERENCE in methods else []
    return {name: [*first, *keys][: len(plots.HOSTS)] for name, keys in groups.items() if keys}


def draw(document: Mapping[str, Any], folder: Path = IMAGES) -> list[Path]:
    """Write an SVG for each group of methods, of the first dataset."""
    task = next(iter(document["protocol"]["datasets"]))
    rows = [row for row in document["rows"] if row["task"] == task]
    summary = [entry for entry in document["summary"] if entry["task"] == task]
    written = []
    for name, keys in pictures(document).items():
        path = folder / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(picture(name, keys, rows, summary), encoding="utf-8")
        written.append(path)
    return written


def picture(name: str, keys: Sequence[Key], rows: Sequence[Robustness], summary: Sequence[RobustnessSummary]) -> str:
    """Two panels, a key below, and the colours that the page would give. -> SVG."""
    from matplotlib.lines import Line2D

    figure = plots.new_figure(8.6, 4.6)
    for at, (side, words) in enumerate(HEIGHTS.items()):
        axes = figure.add_axes((0.055 + 0.5 * at, 0.255, 0.43, 0.68))
        for index, key in enumerate(keys):
            path = path_of([row for row in rows if (row["host"], row["ogen"]) == key], side)
            if path:
                draw_path(axes, path, end_of(summary, Variant(*key), "chosen", side), index)
        axes.margins(0.07)
        axes.set_title(f"{words}, %", fontsize=10, loc="left", color=plots.INK)
        axes.set_xlabel("ID accuracy, %", fontsize=9, color=plots.SOFT)
        axes.grid(color=plots.RULE, lw=0.6)
        axes.set_axisbelow(True)
    handles = [Line2D([], [], color=plots.HOSTS[i], marker=plots.MARKERS[i], lw=1.5, ms=7) for i in range(len(keys))]
    names = [named(host, ogen) for host, ogen in keys]
    figure.legend(
        handles,
        names,
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0.045, 0.04),
        frameon=False,
        fontsize=9,
        labelcolor=plots.INK,
    )
    figure.text(
        0.06,
        0.02,
        "from alpha 0 (zero-shot) to alpha 1 (the large mark); ring: the alpha that validation images choose",
        fontsize=8.5,
        color=plots.SOFT,
        va="center",
    )
    return standalone(plots.to_svg(figure, name, "mean OOD and mean zero-shot accuracy over ID accuracy"))


def standalone(svg: str) -> str:
    """The same as a file of its own: the report's colours inside, on white, with the name space that files need."""
    root = CSS[CSS.index(":root") : CSS.index("}", CSS.index(":root")) + 1]
    variables = "".join(re.findall(r"--[\w-]+:[^;}]+;?", root))
    style = f"<style>svg{{{variables}background:#fff;font-family:sans-serif}}</style>"
    if "xmlns=" not in svg[: svg.index(">")]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    head = svg.index(">") + 1
    return svg[:head] + style + svg[head:] + "\n"

"""The report's picture of real and synthesized features, after figure 3 of OGEN (https://arxiv.org/abs/2401.15914).

Notation: a *projection* is what `projection.project` returns, with `host`, `ogen`, `domain` and `variant`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ogenlib.report.findings import items, variant_of
from ogenlib.report.format import finite, label
from ogenlib.report.html import section, tag
from ogenlib.report.plots import lines as plots
from ogenlib.results.types import Projection, Results

KINDS = ("real", "synthesized", "text")
WIDTH, HEIGHT = 4.6, 4.2  # inches
FILLED = {"fill": "currentColor"}
OPEN = {"fill": "none", "stroke": "currentColor", "stroke_width": "1.8"}
COLOURS = (1, 2, 3, 4, 5, 7)  # of the hosts' colours: no grey, and one blue
Point = tuple[float, float]


def feature_section(results: Results) -> Markup | None:
    """One picture for each entry of `results["projection"]`; None where there is nothing to draw.

    Hosts share a picture where their generators synthesize the same: one that is trained before the host knows no host.
    """
    drawn = [(item, clouds(item)) for item in items(results.get("projection"))]
    drawn = [(item, by_kind) for item, by_kind in drawn if any(by_kind["real"])]
    hosts: dict[str, list[str]] = {}
    for item, _ in drawn:
        hosts.setdefault(content(item), []).append(label(variant_of(item)))
    drawn = list({content(item): (item, by_kind) for item, by_kind in reversed(drawn)}.values())[::-1]
    if not drawn:
        return None
    texts = any(any(by_kind["text"]) for _, by_kind in drawn)
    key = [
        tag("span", plots.symbol('<circle cx="8" cy="8" r="5"/>', **FILLED), "real image"),
        tag("span", plots.symbol('<path d="M8 2L14 8L8 14L2 8z"/>', **OPEN), "made by the generator"),
        tag("span", plots.symbol('<path d="M8 0L16 8L8 16L0 8z"/>', **FILLED), "their mean"),
        tag("span", plots.symbol('<path d="M2 2L14 14M14 2L2 14"/>', **OPEN), "the name itself") if texts else None,
    ]
    figures = [picture(item, by_kind, i, ", ".join(hosts[content(item)])) for i, (item, by_kind) in enumerate(drawn)]
    return section(
        "Real and synthesized features",
        "Names that had no training images. Filled dots are their real test images, which no training has seen; open "
        "diamonds are what the generator made from the names alone. The plane shows how the means of the real classes "
        "differ; it is computed from real features, and so is the choice of classes that lie apart. One colour per "
        "class; the name stands near its real mean, and a line leads from that mean to the mean of what was made for "
        "it. The shorter the line, the better the guess.",
        plots.missing_plots(),
        tag("div", *key, cls="key") if plots.plots_available() else None,
        tag("div", *figures, cls="figures single" if len(figures) == 1 else "figures"),
    )


def clouds(item: Projection) -> dict[str, list[list[Point]]]:
    """Points by kind and class, those without two finite coordinates left out."""
    n_classes = len(item.get("classes") or [])
    by_kind: dict[str, list[list[Point]]] = {kind: [[] for _ in range(n_classes)] for kind in KINDS}
    for point in items(item.get("points")):
        place, kind, xy = point.get("class"), point.get("kind"), point.get("xy")
        if not isinstance(place, int) or not 0 <= place < n_classes or kind not in by_kind:
            continue
        both = [finite(v) for v in xy] if isinstance(xy, Sequence) else []
        if len(both) == 2 and both[0] is not None and both[1] is not None:
            by_kind[kind][place].append((both[0], both[1]))
    return by_kind


def content(item: Projection) -> str:
    """All of an entry but its host, to compare entries by."""
    return repr([item.get(key) for key in ("ogen", "domain", "variant", "classes", "points")])


def picture(item: Projection, by_kind: Mapping[str, list[list[Point]]], index: int, hosts: str) -> Markup:
    """The figure of one projection with heading and caption."""
    where = " · ".join(str(item[key]) for key in ("domain", "variant") if item.get(key))
    drawn = plots.plots_available()
    svg = feature_figure(list(map(str, item["classes"])), by_kind, f"features-{index}") if drawn else ""
    heading = tag("h3", hosts, tag("small", where))
    return tag("figure", heading, svg, tag("figcaption", words(by_kind)))


def words(by_kind: Mapping[str, list[list[Point]]]) -> str:
    """In how many classes the synthesized mean is nearer to the real mean of its own class than to any other's."""
    real, synthesized = ([_middle(points) for points in by_kind[kind]] for kind in ("real", "synthesized"))
    known = {place: mean for place, mean in enumerate(real) if mean}
    compared = {place: mean for place, mean in enumerate(synthesized) if mean and place in known}
    own = sum(min(known, key=lambda i: math.dist(mean, known[i])) == place for place, mean in compared.items())
    return f"Synthesized means nearest to their own class’s real mean, in this plane: {own} of {len(compared)}."


def feature_figure(classes: Sequence[str], by_kind: Mapping[str, list[list[Point]]], name: str) -> Markup:
    """Filled dots for real features, open diamonds for synthesized ones, crosses for names. -> SVG."""
    figure = plots.new_figure(WIDTH, HEIGHT)
    axes = figure.add_axes((0, 0, 1, 1))
    colours = [plots.HOSTS[COLOURS[place % len(COLOURS)]] for place in range(len(classes))]
    styles: dict[str, dict[str, Any]] = {
        "synthesized": {"s": 22, "alpha": 0.7, "linewidths": 0.9, "marker": "D", "facecolors": "none"},
        "real": {"s": 30, "alpha": 0.85, "linewidths": 0, "marker": "o"},  # above: they are fewer
        "text": {"s": 70, "linewidths": 2.4, "marker": "x"},
    }
    for order, (kind, style) in enumerate(styles.items()):
        side = "edgecolors" if kind == "synthesized" else "color"
        for colour, points in zip(colours, by_kind[kind], strict=True):
            if points:
                axes.scatter(*zip(*points, strict=True), **{side: colour}, **style, zorder=2 + order)
    for colour, *ends in zip(colours, *(map(_middle, by_kind[kind]) for kind in ("real", "synthesized")), strict=True):
        if None not in ends:  # how far the synthesized class is off
            axes.plot(*zip(*ends, strict=True), color=colour, lw=1.4, zorder=6)
            axes.scatter(*ends[1], s=90, marker="D", color=colour, edgecolors=plots.PAPER, linewidths=1.2, zorder=7)
    everything = [point for clouds in by_kind.values() for points in clouds for point in points]
    per_inch = _equal_limits(axes, everything)
    _write_names(axes, classes, colours, [_middle(points) for points in by_kind["real"]], per_inch)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
    return Markup(plots.to_svg(figure, name, f"Real and synthesized features of {', '.join(classes)}"))


def _equal_limits(axes: Any, points: Sequence[Point]) -> float:
    """Show all points with one scale on both axes; returns data units per inch."""
    columns = list(zip(*points, strict=True))
    (left, right), (low, high) = ((min(c), max(c)) for c in columns)
    scale = max((right - left) / (WIDTH - 0.4), (high - low) / (HEIGHT - 0.4), 1e-9)
    axes.set_xlim((left + right - scale * WIDTH) / 2, (left + right + scale * WIDTH) / 2)
    axes.set_ylim((low + high - scale * HEIGHT) / 2, (low + high + scale * HEIGHT) / 2)
    return scale


def _write_names(
    axes: Any, classes: Sequence[str], colours: Sequence[str], means: Sequence[Point | None], per_inch: float
) -> None:
    """Each name at its class's real mean, moved up or down where names would cover each other."""
    placed = [(name, colour, mean) for name, colour, mean in zip(classes, colours, means, strict=True) if mean]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    gap = 0.21 * per_inch
    heights = plots.spread([mean[1] for _, _, mean in placed], gap)
    for (name, colour, (x, _)), y in zip(placed, heights, strict=True):
        shown = name if len(name) <= 22 else name[:21] + "…"
        half = 0.05 * len(shown) * per_inch  # of a name, at 10 points
        axes.text(
            min(max(x, left + half), right - half),
            min(max(y, low + gap), high - gap),
            shown,
            color=colour,
            fontsize=10,
            fontweight="bold",
            ha="center",
            va="center",
            zorder=9,
            parse_math=False,
            bbox={"facecolor": plots.PAPER, "alpha": 0.75, "edgecolor": "none", "boxstyle": "round,pad=0.15"},
        )


def _middle(points: Sequence[Point]) -> Point | None:
    n = len(points)
    return (sum(x for x, _ in points) / n, sum(y for _, y in points) / n) if n else None

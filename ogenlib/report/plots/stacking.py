"""Joint accuracy on base against on new names, a line a method: the curves under which AUSUC is the area.

Notation: a *point* is (accuracy on base images, on new images) in percent, all names competing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from ogenlib.report.format import finite
from ogenlib.report.plots import lines as plots
from ogenlib.results.types import StackedCurve

POINTS = 61  # of a mean curve
Point = tuple[float, float]


class Stacked(NamedTuple):
    """A method's curve and its points at constant 0 and at the chosen constants, means over seeds."""

    curve: list[Point]
    zero: Point | None
    chosen: Point | None


def mean_stacked(curves: Sequence[StackedCurve]) -> Stacked | None:
    """The mean over seeds: points at the same share of each curve's length. None without a curve."""
    drawn = [points for one in curves if (points := _points(one.get("base"), one.get("new")))]
    if not drawn:
        return None
    even = [_even(points) for points in drawn]
    middle = [_mean([points[place] for points in even]) for place in range(POINTS)]
    zero, chosen = ([_points([p[0]], [p[1]]) for p in pairs if p and len(p) == 2] for pairs in (
        [one.get("zero") for one in curves], [one.get("chosen") for one in curves]
    ))  # fmt: skip
    return Stacked(middle, _only(zero, len(curves)), _only(chosen, len(curves)))


def _points(base: Sequence[object] | None, new: Sequence[object] | None) -> list[Point]:
    pairs = zip(map(finite, base or ()), map(finite, new or ()), strict=False)
    return [(b, n) for b, n in pairs if b is not None and n is not None]


def _only(points: Sequence[list[Point]], count: int) -> Point | None:
    """The mean, where every curve has the point."""
    return _mean([one for each in points for one in each]) if len(points) == count and all(points) else None


def _mean(points: Sequence[Point]) -> Point:
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


def _even(points: Sequence[Point]) -> list[Point]:
    """`POINTS` points on the line through these, evenly along its length (base and new added up)."""
    reached = [0.0]
    for (b, n), (c, m) in pairwise(points):
        reached.append(reached[-1] + abs(c - b) + abs(m - n))
    even, place = [], 0
    for step in range(POINTS):
        at = reached[-1] * step / (POINTS - 1)
        while place < len(points) - 2 and reached[place + 1] < at:
            place += 1
        after = min(place + 1, len(points) - 1)
        gap = reached[after] - reached[place]
        share = min(1.0, (at - reached[place]) / gap) if gap else 0.0
        (b, n), (c, m) = points[place], points[after]
        even.append((b + share * (c - b), n + share * (m - n)))
    return even


def stacking_figure(methods: Sequence[Stacked], most: Point, name: str) -> Markup:
    """The curves, colours and markers in the order of `plots.host_key`; a marker at constant 0, a ring at the chosen
    one. -> SVG.

    Args:
        most: the largest accuracies on base and on new that are to fit in.
    """
    figure = plots.new_figure(4.6, 3.7)
    axes = figure.add_axes((0.105, 0.135, 0.875, 0.79))
    for index, method in enumerate(methods):
        colour, marker = plots.HOSTS[index % len(plots.HOSTS)], plots.MARKERS[index % len(plots.MARKERS)]
        axes.plot([b for b, _ in method.curve], [n for _, n in method.curve], color=colour, lw=1.5, zorder=2 + index)
        if method.zero is not None:
            axes.plot(*[[one] for one in method.zero], color=colour, marker=marker, ms=7, lw=0, zorder=20 + index)
        if method.chosen is not None:
            axes.scatter(
                *[[one] for one in method.chosen], s=110, facecolors="none", edgecolors=colour, linewidths=1.3,
                zorder=40 + index,
            )  # fmt: skip
    axes.set_xlim(0, 1.04 * most[0] + 1)
    axes.set_ylim(0, 1.04 * most[1] + 1)
    axes.set_xlabel("joint accuracy on base, %", fontsize=9, color=plots.SOFT)
    axes.grid(color=plots.RULE, lw=0.6)
    axes.set_axisbelow(True)
    figure.text(0.02, 0.962, "joint accuracy on new, %", fontsize=9, color=plots.SOFT, va="center")
    words = "joint accuracy on base against on new names, for a rising constant taken from the base names' logits"
    return Markup(plots.to_svg(figure, name, words))

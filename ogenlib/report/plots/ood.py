"""Pictures of detectors: histograms of scores and ROC curves, as SVG text (`ogenlib.report.plots.lines`).

Notation: a *picture* of a detector holds `edges`, `counts` of each group of images, and `roc`, the share of each group
caught at equally spaced shares of known images flagged (`ogenlib.detect.measures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ogenlib.report.plots import lines as plots
from ogenlib.results.types import Picture

# Group -> words and colour. Known ones are blues, unknown ones are not.
GROUPS = {
    "known": ("known", plots.BASE), "shifted": ("known, other domains", plots.HOSTS[3]),
    "near": ("new names", plots.NEW), "far": ("other datasets", plots.HOSTS[4]),
}  # fmt: skip
# Detector whose curve is drawn -> number of its colour among the hosts'.
LINES = {"mcm": 0, "max_logit": 3, "ogen": 1, "ogen_images": 2}
KEPT = 0.95


def histogram_figure(picture: Picture, name: str) -> Markup:
    """One outline a group, each with area one; the known ones and the new names filled. -> SVG."""
    figure = plots.new_figure(4.6, 2.9)
    axes = figure.add_axes((0.02, 0.115, 0.96, 0.86))
    edges, counts = picture["edges"], picture["counts"]
    for group, (_, colour) in GROUPS.items():
        own = counts.get(group)
        if not own or not sum(own):
            continue
        shares = [100 * count / sum(own) for count in own]
        filled = group in ("known", "near")
        axes.stairs(
            shares, edges, fill=filled, color=colour, alpha=0.3 if filled else 1.0, lw=0 if filled else 1.5, ls="-"
        )
        if filled:
            axes.stairs(shares, edges, color=colour, lw=1.5)
    threshold = threshold_of(edges, counts["known"])
    axes.axvline(threshold, color=plots.INK, lw=1)
    right = threshold > (edges[0] + edges[-1]) / 2  # the words stay inside
    side: dict[str, Any] = {"xytext": (-4, -7), "ha": "right"} if right else {"xytext": (4, -7), "ha": "left"}
    axes.annotate(
        "95 % of known",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
        color=plots.INK,
        va="center",
        **side,
    )
    axes.set_yticks([])
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])  # the words above are not to lie on an outline
    axes.margins(x=0.01)
    axes.locator_params(axis="x", nbins=6)
    return Markup(plots.to_svg(figure, name, "histogram of scores of known and unknown images"))


def threshold_of(edges: list[float], counts: list[int]) -> float:
    """Where 95 % of the counted images lie below, as exactly as the bins say it."""
    target, below = KEPT * sum(counts), 0
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count and below + count >= target:
            return low + (high - low) * (target - below) / count
        below += count
    return edges[-1]


def roc_figure(curves: Mapping[str, tuple[Mapping[str, list[float]], int]], name: str) -> Markup:
    """Unknown caught over known flagged, in percent: solid for new names, dashed for other datasets. -> SVG.

    Args:
        curves: title -> (`roc` of a picture, number of a colour).
    """
    figure = plots.new_figure(4.6, 2.9)
    axes = figure.add_axes((0.075, 0.115, 0.9, 0.86))
    axes.plot([0, 100], [0, 100], color=plots.RULE, lw=1)
    for place, (title, (roc, number)) in enumerate(curves.items()):
        colour = plots.HOSTS[number]
        for group, dashes in (("near", "-"), ("far", (0, (4, 2)))):
            caught = roc.get(group)
            if caught:
                flagged = [100 * i / (len(caught) - 1) for i in range(len(caught))]
                axes.plot(flagged, [100 * share for share in caught], color=colour, lw=1.5, ls=dashes)
        axes.annotate(
            title,
            (0.98, 0.06 + 0.075 * (len(curves) - 1 - place)),
            xycoords="axes fraction",
            fontsize=9,
            color=colour,
            ha="right",
            fontweight="bold",
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 101)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(color=plots.RULE, lw=0.6)
    axes.set_axisbelow(True)
    return Markup(plots.to_svg(figure, name, "unknown images caught over known images flagged"))


def swatch(colour: str) -> Markup:
    """A filled square for a key, in the colour's name on the page."""
    return plots.symbol('<rect x="1" y="1" width="14" height="14"/>', fill=f"var(--{plots.VARIABLES[colour]})")

"""The report's section on robustness: one table, and the paths of WiSE-FT from the start of a training to its end.

Notation: a *path* is the curve of one host, mean over seeds: (alpha, ID, OOD or zero-shot), alphas rising.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from ogenlib.report.findings import items, variant_of
from ogenlib.report.format import Variant, finite, label, mean_of, number, plus_minus
from ogenlib.report.html import details, section, table, tag
from ogenlib.report.plots import lines as plots
from ogenlib.results.tables import full_mean
from ogenlib.results.types import PointMeasure, ProtocolCard, Results, RobustMetric, Robustness, RobustnessSummary

HEIGHTS: dict[RobustMetric, str] = {"ood": "mean over shifts", "zero_shot": "mean over other datasets"}
POINTS = {"trained": "", "half": " · WiSE-FT, alpha 0.5", "chosen": " · WiSE-FT, alpha chosen"}


class Step(NamedTuple):
    """The accuracies of one alpha: in the domain of training, and the height in a picture."""

    alpha: float
    id: float
    height: float


Path = list[Step]


def robust_section(results: Results) -> Markup | None:
    """Table and pictures of `robustness` and `robustness_summary`; None for documents without them."""
    summary = items(results.get("robustness_summary"))
    if not summary:
        return None
    card: ProtocolCard = results.get("protocol") or {}
    variants = list(dict.fromkeys(variant_of(row) for row in summary))
    entries = {v: [e for e in items(results.get("robustness")) if variant_of(e) == v] for v in variants}
    drawn = plots.plots_available()
    figures, curves = [], []
    for side, words in HEIGHTS.items():
        paths = {v: path_of(entries[v], side) for v in variants}
        chosen = {v: end_of(summary, v, "chosen", side) for v in variants}
        if not any(paths.values()):
            continue
        figure = path_figure(paths, chosen, side) if drawn else ""
        heading = tag("h3", words[:1].upper() + words[1:], tag("small", " over ID accuracy, %" if drawn else ""))
        figures.append(tag("figure", heading, figure, tag("figcaption", path_words(paths))))
    if figures:
        curves = [curve_table(entries)]
    reference = card.get("effective_robustness")
    return section(
        "Robustness",
        "ID: the reference domain. Then means over shifted domains, and over datasets of other things with zero-shot "
        "weights made anew. Effective robustness is how far a method is above the line between zero-shot and "
        "fine-tuning. WiSE-FT stands between where a training began and where it ended; its alpha is chosen on "
        "validation images of the training domain, never on a test image.",
        robust_table(summary),
        tag("p", f"Effective robustness: {reference}.", cls="soft") if reference else None,
        plots.missing_plots() if figures else None,
        plots.host_key(variants) if figures else None,
        tag("div", *figures, cls="figures") if figures else None,
        *curves,
        left_out(entries),
    )


def robust_table(summary: Sequence[RobustnessSummary]) -> Markup:
    """Every point of every host; the best mean of a column in bold."""
    columns: dict[PointMeasure, str] = {
        "id": "ID",
        "ood": "Mean OOD",
        "zero_shot": "Mean zero-shot",
        "effective_robustness": "Effective",
    }
    shown = [key for key in columns if any(mean_of(row.get(key)) is not None for row in summary)]
    best = {key: max(round(m, 1) for row in summary if (m := mean_of(row.get(key))) is not None) for key in shown}

    def cell(row: RobustnessSummary, key: PointMeasure) -> Markup:
        mean = mean_of(row.get(key))
        return tag(
            "td", plus_minus(row.get(key)), cls="best" if mean is not None and round(mean, 1) == best[key] else ""
        )

    body = [
        [
            label(variant_of(row)) + POINTS.get(str(row.get("point")), f" · {row.get('point')}"),
            number(mean_of(row.get("alpha")), 2),
            *[cell(row, key) for key in shown],
        ]
        for row in summary
    ]
    return table(["Host", "Alpha", *[columns[key] for key in shown]], body)


def path_of(entries: Sequence[Robustness], side: RobustMetric) -> Path:
    """The mean over seeds at every alpha that all of them have; empty where a seed has no curve."""
    curves = [{finite(p.get("alpha")): p for p in entry.get("curve") or []} for entry in entries]
    if not curves or not all(curves):
        return []
    path: Path = []
    axes: tuple[RobustMetric, ...] = ("id", side)
    for alpha in sorted(a for a in curves[0] if a is not None and all(a in curve for curve in curves)):
        across, up = (full_mean([finite(curve[alpha].get(key)) for curve in curves]) for key in axes)
        if across is not None and up is not None:
            path.append(Step(alpha, across, up))
    return path


def end_of(
    summary: Sequence[RobustnessSummary], variant: Variant, point: str, side: RobustMetric
) -> tuple[float, float] | None:
    """(ID, side) of one point's means."""
    for row in summary:
        if variant_of(row) == variant and row.get("point") == point:
            at, height = mean_of(row.get("id")), mean_of(row.get(side))
            return None if at is None or height is None else (at, height)
    return None


def path_words(paths: Mapping[Variant, Path]) -> str:
    """How to read the picture."""
    alphas = sorted({step.alpha for path in paths.values() for step in path})
    steps = ", ".join(f"{alpha:g}" for alpha in alphas)
    return (
        f"Alpha {steps}: small dots are on the way, the host’s own marker is the end (alpha 1), the ring is the "
        "alpha chosen for each seed, averaged. Up and to the right is better."
    )


def path_figure(
    paths: Mapping[Variant, Path], chosen: Mapping[Variant, tuple[float, float] | None], side: RobustMetric
) -> Markup:
    """`side` over ID accuracy from alpha 0 to 1, a line a host; colours and markers as `plots.host_marker`. -> SVG."""
    figure = plots.new_figure(4.6, 3.4)
    axes = figure.add_axes((0.09, 0.135, 0.88, 0.83))
    for index, (variant, path) in enumerate(paths.items()):
        if path:
            draw_path(axes, path, chosen.get(variant), index)
    starts = {(round(path[0].id, 1), round(path[0].height, 1)) for path in paths.values() if path}
    for across_at, up_at in sorted(starts)[:1] if len(starts) == 1 else []:  # all began at one place
        axes.annotate(
            "alpha 0", (across_at, up_at), xytext=(6, -10), textcoords="offset points", fontsize=9, color=plots.SOFT
        )
    axes.margins(0.08)
    axes.set_xlabel("ID accuracy", fontsize=9, color=plots.SOFT)
    axes.grid(color=plots.RULE, lw=0.6)
    axes.set_axisbelow(True)
    words = f"accuracy, {HEIGHTS[side]}, over ID accuracy from alpha 0 to 1"
    return Markup(plots.to_svg(figure, f"robust-{side}", words))


def draw_path(axes: Any, path: Path, ring: tuple[float, float] | None, index: int) -> None:
    """One host's line with a mark at its end, and a ring around the chosen alpha."""
    colour, marker = plots.HOSTS[index % len(plots.HOSTS)], plots.MARKERS[index % len(plots.MARKERS)]
    across, up = [step.id for step in path], [step.height for step in path]
    axes.plot(across, up, color=colour, lw=1.5, marker="o", ms=2.6, zorder=2 + index)
    axes.plot(across[-1:], up[-1:], color=colour, marker=marker, ms=7, lw=0, zorder=20 + index)
    if ring is not None:
        axes.scatter(
            [ring[0]], [ring[1]], s=160, facecolors="none", edgecolors=colour, linewidths=1.4, zorder=40 + index
        )


def curve_table(entries: Mapping[Variant, Sequence[Robustness]]) -> Markup:
    """What the pictures show, in numbers."""
    body = []
    for variant, own in entries.items():
        paths = [{step.alpha: step for step in path_of(own, side)} for side in HEIGHTS]
        for alpha in sorted({alpha for path in paths for alpha in path}):
            at = next(path[alpha].id for path in paths if alpha in path)
            cells = [number(path[alpha].height if alpha in path else None) for path in paths]
            body.append([label(variant), number(alpha, 2), number(at), *cells])
    return details(f"Every alpha ({len(body)})", table(["Host", "Alpha", "ID", "Mean OOD", "Mean zero-shot"], body))


def left_out(entries: Mapping[Variant, Sequence[Robustness]]) -> Markup | None:
    """Which hosts have no curve, and why."""
    reasons = {label(v): own[0].get("why_no_curve") for v, own in entries.items() if own}
    lines = [tag("li", tag("strong", name), f": {reason}") for name, reason in reasons.items() if reason]
    return details(f"Without a curve ({len(lines)})", tag("ul", *lines)) if lines else None

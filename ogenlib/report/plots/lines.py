"""The report's pictures, as SVG text for a page that names the colours (`style.css`).

Notation: a curve is accuracy in percent on base and on new names over epochs, a mean line over seeds with a band
from the lowest to the highest seed. matplotlib is needed for the figures only (extra `plot`).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from ogenlib.report.format import Variant, finite, label, number
from ogenlib.report.html import tag
from ogenlib.results.types import TrainingCurve

# Stand-ins that matplotlib writes and `to_svg` turns into CSS variables, so that one picture serves light and dark.
INK, SOFT, RULE, BASE, NEW, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06"
HOSTS = tuple(f"#0a0c0{index}" for index in range(8))
VARIABLES = {INK: "ink", SOFT: "soft", RULE: "rule", BASE: "base", NEW: "new", PAPER: "paper"} | {
    colour: f"h{index}" for index, colour in enumerate(HOSTS)
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Band(NamedTuple):
    """Of the seeds at one epoch."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Curve:
    """Epochs ascend; the sides are as long as they."""

    epochs: tuple[int, ...]
    base: tuple[Band, ...]
    new: tuple[Band, ...]
    n_seeds: int

    @property
    def base_mean(self) -> list[float]:
        return [band.mean for band in self.base]

    @property
    def new_mean(self) -> list[float]:
        return [band.mean for band in self.new]


def mean_curve(curves: Sequence[TrainingCurve]) -> Curve:
    """One curve from those of several seeds: `{"epoch": [...], "base": [...], "new": [...]}` each.

    An epoch counts if at least one seed measured both sides there; seeds that stopped early drop out of the
    mean of later epochs. Values that are None or NaN are skipped.
    """
    seen: dict[int, list[tuple[float, float]]] = {}
    for curve in curves:
        columns = (curve.get("epoch") or [], curve.get("base") or [], curve.get("new") or [])
        for epoch, base, new in zip(*columns, strict=False):
            b, n = finite(base), finite(new)
            if b is not None and n is not None:
                seen.setdefault(int(epoch), []).append((b, n))
    epochs = tuple(sorted(seen))

    def side(index: int) -> tuple[Band, ...]:
        columns = [[pair[index] for pair in seen[epoch]] for epoch in epochs]
        return tuple(Band(sum(column) / len(column), min(column), max(column)) for column in columns)

    return Curve(epochs, side(0), side(1), max((len(pairs) for pairs in seen.values()), default=0))


def parting_epoch(
    epochs: Sequence[int], base: Sequence[float], new: Sequence[float], zero_base: float | None, zero_new: float | None
) -> int | None:
    """The first epoch from which, up to the last, new is below `zero_new` while base is above `zero_base`.

    Both strictly. None if the last epoch does not fulfil it (however long an earlier stretch did), if there is
    no epoch, or if a zero-shot level is missing. All four in percent.
    """
    if zero_base is None or zero_new is None:
        return None
    first: int | None = None
    for epoch, b, n in reversed(list(zip(epochs, base, new, strict=True))):
        if not (b > zero_base and n < zero_new):
            break
        first = epoch
    return first


def parting_words(curve: Curve, seeds: Sequence[Curve], zero_base: float | None, zero_new: float | None) -> str:
    """What the picture shows, in words, also for the seeds one by one."""
    base, new = curve.base_mean, curve.new_mean
    end = f"At the end base is {number(base[-1])} and new {number(new[-1])}"
    top = max(range(len(new)), key=new.__getitem__)
    fell = number(new[top]) != number(new[-1])
    best = f" New was highest at epoch {curve.epochs[top]}, {number(new[top])}." if fell else ""
    if zero_base is None or zero_new is None:
        return f"{end}; without zero-shot in this run there is no moment of parting."
    levels = f"(zero-shot {number(zero_base)} and {number(zero_new)})"
    part = parting_epoch(curve.epochs, base, new, zero_base, zero_new)
    each = [parting_epoch(c.epochs, c.base_mean, c.new_mean, zero_base, zero_new) for c in seeds if c.epochs]
    per_seed = f" Seed by seed: {', '.join(str(e or 'none') for e in each)}." if len(each) > 1 else ""
    if part is not None:
        return f"Base and new part at epoch {part}. {end} {levels}.{best}{per_seed}"
    why = [] if new[-1] < zero_new else ["new does not end below zero-shot"]
    why += [] if base[-1] > zero_base else ["base does not end above zero-shot"]
    return f"Base and new do not part: {' and '.join(why)}. {end} {levels}.{best}{per_seed}"


def plots_available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def missing_plots() -> Markup | None:
    """One line that says how to get the plots, where they cannot be drawn."""
    if plots_available():
        return None
    command = tag("code", 'pip install "ogenlib[plot]"')
    return tag("p", "Plots need matplotlib: ", command, ", then write the report again.")


def limits(curves: Sequence[Curve], levels: Sequence[float | None]) -> tuple[float, float]:
    """One y range for all panels: everything drawn, with a little air, within 0 to 100."""
    values = [value for curve in curves for band in (*curve.base, *curve.new) for value in band]
    values += [level for level in levels if level is not None]
    if not values:
        return 0.0, 100.0
    air = max(1.0, 0.07 * (max(values) - min(values)))
    return max(0.0, min(values) - air), min(100.0, max(values) + air)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart so that neighbours are at least `gap` away from each other, order kept.

    Overlapping neighbours are merged into a block that keeps its centre, so labels stay near their lines.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[tuple[float, list[int]]] = []  # centre, members
    for index in order:
        blocks.append((positions[index], [index]))
        while len(blocks) > 1:
            (low, below), (high, above) = blocks[-2:]
            if high - low >= gap * (len(below) + len(above)) / 2:
                break
            size = len(below) + len(above)
            blocks[-2:] = [((low * len(below) + high * len(above)) / size, below + above)]
    moved = [0.0] * len(positions)
    for centre, members in blocks:
        for place, index in enumerate(members):
            moved[index] = centre + gap * (place - (len(members) - 1) / 2)
    return moved


def curve_figure(
    curve: Curve, zero_base: float | None, zero_new: float | None, y_range: tuple[float, float], name: str
) -> Markup:
    """Base and new accuracy over epochs of one host, zero-shot dashed, the parting epoch marked. -> SVG."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(4.6, 3.0)
    axes = figure.add_axes((0.085, 0.135, 0.625, 0.76))
    part = parting_epoch(curve.epochs, curve.base_mean, curve.new_mean, zero_base, zero_new)
    single = len(curve.epochs) == 1
    labels: list[tuple[float, str, str, str]] = []
    for side, bands, zero, colour, phase in (
        ("base", curve.base, zero_base, BASE, 0),
        ("new", curve.new, zero_new, NEW, 4),  # equal levels show as dashes of both colours in turn
    ):
        means, lowest, highest = zip(*bands, strict=True)
        axes.fill_between(curve.epochs, lowest, highest, color=colour, alpha=0.18, lw=0)
        axes.plot(curve.epochs, means, color=colour, lw=2, marker="o" if single else None)
        labels.append((means[-1], f"{side} {means[-1]:.1f}", colour, "bold"))
        if zero is not None:
            axes.axhline(zero, color=colour, lw=1.1, ls=(phase, (4, 4)))
            labels.append((zero, f"zero-shot {side} {zero:.1f}", colour, "normal"))
    first, last = curve.epochs[0], curve.epochs[-1]
    axes.set_xlim(first - (0.5 if single else 0), last + (0.5 if single else 0))
    axes.set_ylim(*y_range)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_xlabel("epoch", fontsize=9, color=SOFT)
    if part is not None:
        axes.axvline(part, color=INK, lw=1)
        left = part - first > 0.55 * (last - first)
        axes.annotate(
            f"parting: epoch {part}",
            (part, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if left else 3 if part > first else 0, 6),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=9,
            color=INK,
        )
    elif zero_base is not None and zero_new is not None:
        figure.text(0.71, 0.955, "no parting", fontsize=9, color=SOFT, va="center", ha="right")
    write_labels(axes, labels)
    return Markup(to_svg(figure, name, f"{name}: accuracy on base and on new names over epochs"))


def write_labels(
    axes: Any, labels: Sequence[tuple[float, str, str, str]], *, gap: float = 0.062, at: float = 1.035, size: float = 9
) -> None:
    """Names of lines at their right ends (height, text, colour, weight), moved apart where they would overlap.

    gap: between neighbours, a share of the axes' height. at: where the names begin, in widths of the axes.
    """
    low, high = axes.get_ylim()
    heights = spread([label[0] for label in labels], gap * (high - low))
    for (value, text, colour, weight), height in zip(labels, heights, strict=True):
        axes.annotate(
            text,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(at, height),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=size,
            color=colour,
            fontweight=weight,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 2, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def domain_figure(
    metric: str, domains: Sequence[str], series: Mapping[str, Sequence[float | None]], name: str
) -> Markup:
    """One dot per host and domain; `series` holds a value or None per domain, in percent. -> SVG.

    Colours and markers follow the order of `series` (`host_key` draws the same ones).
    """
    figure = new_figure(3.4, 0.62 + 0.27 * len(domains))
    height = figure.get_figheight()
    longest = min(24, max((len(domain) for domain in domains), default=0))
    left = min(0.5, 0.03 + 0.0195 * longest)
    axes = figure.add_axes((left, 0.36 / height, 0.97 - left, 1 - 0.62 / height))
    places = list(range(len(domains)))
    for place in places:
        known = [values[place] for values in series.values()]
        numbers = [value for value in known if value is not None]
        if len(numbers) > 1:
            axes.plot([min(numbers), max(numbers)], [place, place], color=RULE, lw=2, zorder=1)
    for index, values in enumerate(series.values()):
        shift = 0.36 * (index / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0  # equal values stay apart
        points = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        axes.scatter(
            [value for value, _ in points],
            [place + shift for _, place in points],
            color=HOSTS[index % len(HOSTS)],
            marker=MARKERS[index % len(MARKERS)],
            s=30,
            linewidths=0,
            zorder=2 + index,
        )
    shown = [domain if len(domain) <= 24 else domain[:23] + "…" for domain in domains]
    axes.set_yticks(places, shown)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_ylim(len(domains) - 0.4, -0.6)
    axes.grid(axis="x", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    figure.text(left, 1 - 0.13 / height, f"{metric}, %", fontsize=9, color=SOFT, va="center")
    return Markup(to_svg(figure, name, f"{metric} per domain and host"))


def shots_figure(shots: Sequence[int], series: Mapping[str, Sequence[float | None]]) -> Markup:
    """Accuracy over the number of training images of a class, a line a host, in percent. -> SVG."""
    figure = new_figure(4.6, 2.8)
    axes = figure.add_axes((0.09, 0.15, 0.88, 0.8))
    for index, values in enumerate(series.values()):
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        axes.plot(
            [p for p, _ in points],
            [v for _, v in points],
            color=HOSTS[index % len(HOSTS)],
            lw=1.6,
            ms=5,
            marker=MARKERS[index % len(MARKERS)],
            zorder=2 + index,
        )
    axes.set_xticks(range(len(shots)), [str(n) for n in shots])  # evenly: shots double
    axes.set_xlabel("training images of a class", fontsize=9, color=SOFT)
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    return Markup(to_svg(figure, "shots", "accuracy over training images of a class, per host"))


def host_marker(index: int) -> Markup:
    """The marker of the host at `index` in `domain_figure`, as a small inline SVG."""
    shapes = (
        '<circle cx="8" cy="8" r="6"/>',
        '<rect x="2" y="2" width="12" height="12"/>',
        '<path d="M8 1L15 14H1z"/>',
        '<path d="M8 0L16 8L8 16L0 8z"/>',
        '<path d="M8 15L1 2H15z"/>',
        '<path d="M5 1h6v4h4v6h-4v4H5v-4H1V5h4z"/>',
        '<path d="M4 1L8 5L12 1L15 4L11 8L15 12L12 15L8 11L4 15L1 12L5 8L1 4z"/>',
        '<path d="M8 0L10 6H16L11 10L13 16L8 12L3 16L5 10L0 6H6z"/>',
    )
    return symbol(shapes[index % len(shapes)], fill=f"var(--h{index % len(HOSTS)})")


def host_key(variants: Iterable[Variant]) -> Markup | None:
    """Which marker is whose, in the order of a picture's series; None where no plots can be drawn."""
    key = [tag("span", host_marker(index), label(variant)) for index, variant in enumerate(variants)]
    return tag("div", *key, cls="key") if plots_available() else None


def symbol(shape: str, **paint: str) -> Markup:
    """A mark of a key as a small inline SVG: `shape`, elements within 16 by 16, in the colours of `paint`."""
    return tag("svg", Markup(shape), viewBox="0 0 16 16", aria_hidden="true", **paint)


def new_figure(width: float, height: float) -> Any:
    """A figure of its own, in inches, that leaves pyplot and the chosen backend alone."""
    import matplotlib  # before its submodules, so that a missing matplotlib always raises here  # noqa: F401
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def to_svg(figure: Any, name: str, description: str) -> str:
    """The figure as an `<svg>` element: ids made unique by `name`, colours as CSS variables, text as text."""
    import matplotlib

    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(colors=SOFT, labelsize=9, length=0, pad=4)
    figure.patch.set_alpha(0)
    prefix = re.sub(r"\W+", "-", name)
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts draw the text, not ours
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(description), 1)
    return re.sub(r"\n\s*", "\n", svg).strip()

"""Pictures of docs/ood.md from the bin counts and curves in results/ood.json; no features are needed.

    python -m benchmarks.ood.figures            # writes docs/images/ood-scores.svg and ood-roc.svg
    python -m benchmarks.ood.figures --check    # writes nothing; exit 1 if a picture is of other results

A picture carries a hash of the numbers it was drawn from: how an SVG is written changes with matplotlib, what it shows
does not.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.options import parser_of
from benchmarks.common.places import ROOT
from benchmarks.common.results_file import read_results
from benchmarks.ood.tables import TASKS

KNOWN, UNKNOWN, LINES = "#0072b2", "#c24e00", ("#5c6470", "#0072b2", "#c24e00")
INK, SOFT, RULE = "#1c1f24", "#5c6470", "#dfe3e8"
MARK = "<!-- drawn from {} -->"


def pictures(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Detector -> task -> picture.

    Raises:
        ValueError: the results hold none, or not of every task.
    """
    drawn: dict[str, dict[str, Any]] = document.get("pictures") or {}
    lacking = [name for name, of in drawn.items() if set(of) != set(TASKS)]
    if not drawn or lacking:
        raise ValueError(
            f"the results have no pictures of {', '.join(lacking) or 'any detector'}; run benchmarks/ood/study.py"
        )
    return drawn


def scores(drawn: dict[str, dict[str, Any]]) -> Any:
    """Detectors down, tasks across: how the scores of known and unknown images are spread."""
    figure, panels = _panels(len(drawn), len(TASKS), (10.5, 0.45 + 1.15 * len(drawn)))
    for row, (detector, of) in enumerate(drawn.items()):
        for column, (task, title) in enumerate(TASKS.items()):
            axes, picture = panels[row][column], of[task]
            for group, colour in (("known", KNOWN), ("unknown", UNKNOWN)):
                counts = picture["counts"][group]
                shares = [count / sum(counts) for count in counts]
                axes.stairs(shares, picture["edges"], fill=True, color=colour, alpha=0.3)
                axes.stairs(shares, picture["edges"], color=colour, lw=1.2)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.margins(x=0)
            if row == 0:
                axes.set_title(title, fontsize=9, color=INK)
            if column == 0:
                axes.set_ylabel(detector.replace(", ", ",\n"), fontsize=8, color=INK)
    figure.text(0.985, 0.015, "unknown", color=UNKNOWN, fontsize=9, ha="right", weight="bold")
    figure.text(0.92, 0.015, "known", color=KNOWN, fontsize=9, ha="right", weight="bold")
    figure.text(0.015, 0.015, "score: to the right more unknown", color=SOFT, fontsize=9)
    figure.subplots_adjust(
        left=0.085,
        right=0.985,
        top=1 - 0.3 / figure.get_figheight(),
        wspace=0.08,
        hspace=0.12,
        bottom=0.28 / figure.get_figheight(),
    )
    return figure


def curves(drawn: dict[str, dict[str, Any]]) -> Any:
    """A panel for each task: unknown caught over known flagged."""
    figure, panels = _panels(2, 3, (9.0, 5.6))
    for index, (task, title) in enumerate(TASKS.items()):
        axes = panels[index // 3][index % 3]
        axes.plot([0, 100], [0, 100], color=RULE, lw=1)
        for place, ((detector, of), colour) in enumerate(zip(drawn.items(), LINES, strict=False)):
            curve = of[task]["roc"]
            axes.plot(
                [100 * i / (len(curve) - 1) for i in range(len(curve))],
                [100 * share for share in curve],
                color=colour,
                lw=1.4,
            )
            if index == 0:
                axes.text(
                    97, 5 + 9 * (len(drawn) - 1 - place), detector, color=colour, fontsize=8, ha="right", weight="bold"
                )
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 101)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.grid(color=RULE, lw=0.5)
    figure.text(0.5, 0.012, "known images flagged, %", ha="center", fontsize=9, color=SOFT)
    figure.text(0.012, 0.5, "unknown images caught, %", va="center", rotation=90, fontsize=9, color=SOFT)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.95, bottom=0.1, wspace=0.18, hspace=0.28)
    return figure


DRAWN: dict[str, Callable[[dict[str, dict[str, Any]]], Any]] = {"ood-scores.svg": scores, "ood-roc.svg": curves}


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(colors=SOFT, labelsize=8, length=0)
    return figure, panels


def mark(drawn: dict[str, dict[str, Any]]) -> str:
    return MARK.format(hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16])


def svg(figure: Any, marked: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "ood"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return "\n".join(line.rstrip() for line in text[text.index("<svg") :].splitlines()) + f"\n{marked}\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a picture is of other results")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    args = parser.parse_args(argv)
    document = read_results(args.root / "benchmarks" / "results" / "ood.json")
    try:
        drawn = pictures(document)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    folder, stale = args.root / "docs" / "images", False
    for name, draw in DRAWN.items():
        path = folder / name
        current = path.is_file() and path.read_text(encoding="utf-8").endswith(mark(drawn) + "\n")
        stale |= not current
        if not args.check:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(svg(draw(drawn), mark(drawn)), encoding="utf-8")
        print(f"{'current  ' if current else 'stale    ' if args.check else 'written  '} docs/images/{name}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the published base-to-new table on ``emoji-categories``: zero-shot, CoOp, its controls, and CoOp with OGEN.

    python -m benchmarks.ogen.base_to_new            # writes benchmarks/results/emoji-categories.json
    python -m benchmarks.ogen.base_to_new --picture  # only draws docs/images/base-to-new.png from that file

The same thing as ``ogen bench --controls all``; thumbnails are left out of the results file. Other tables:

    python -m benchmarks.ogen.base_to_new --held-out-names --results benchmarks/results/held-out-names.json
    python -m benchmarks.ogen.base_to_new --epochs 200 --results benchmarks/results/long-training.json --image long.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common.bench import bench
from benchmarks.common.markdown import named
from benchmarks.common.options import parser_of
from benchmarks.common.places import IMAGES, RESULTS
from benchmarks.common.results_file import read_results
from ogenlib.bench.runner import BenchConfig
from ogenlib.report.plots.lines import Curve, mean_curve, write_labels
from ogenlib.report.plots.stacking import mean_stacked
from ogenlib.utils.documents import write_json
from ogenlib.utils.files import atomic_write
from ogenlib.utils.variant import CONTROLS, Variant

TABLE, PICTURE = RESULTS / "emoji-categories.json", IMAGES / "base-to-new.png"
COLOURS = {"base": "#0072b2", "new": "#c24e00"}  # after Okabe and Ito: told apart with any colour vision
HOST, NAME = "coop", "CoOp"
STACKED = {
    Variant("zero_shot"): "#8a8a8a",
    Variant(HOST): "#d1812b",
    Variant(HOST, control=CONTROLS[0]): "#2f7f5f",
    Variant(HOST, control=CONTROLS[2]): "#5b8fc7",
    Variant(HOST, True): "#7a1f5c",
}


def run(config: BenchConfig, results: Path, work: Path | None) -> None:
    document = bench(config, "ogen.base_to_new", work)
    for pair in document["confusions"]:
        pair.pop("thumbnails")
    write_json(results, document)


def curves(document: dict[str, Any]) -> dict[str, Curve]:
    """Mean curves by name: the host alone, then with OGEN, each if it was run."""
    by_name = {}
    for ogen, name in ((False, NAME), (True, f"{NAME} + OGEN")):
        own = [c for c in document["curves"] if Variant.of(c) == Variant(HOST, ogen)]
        if own:
            by_name[name] = mean_curve(own)
    if not by_name:
        raise ValueError(f"the results have no curves of {HOST}; run without --picture")
    return by_name


def draw(document: dict[str, Any], path: Path) -> None:
    """Left, base and new accuracy over the epochs; right, joint accuracy on base against on new, with the controls."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=150, layout="constrained", width_ratios=(1.25, 1))
    figure.suptitle(title(document["protocol"], with_ogen=len(curves(document)) > 1), fontsize=10, x=0.01, ha="left")
    draw_curves(document, left)
    draw_stacking(document, right)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def draw_curves(document: dict[str, Any], axes: Any) -> None:
    """Accuracy over the epochs: the host alone thin, with OGEN strong, zero-shot as dashed lines."""
    from matplotlib.ticker import MaxNLocator

    home = document["protocol"]["home_domain"]
    zero = next(r for r in document["summary"] if (r["host"], r["domain"]) == ("zero_shot", home))
    lines = curves(document)
    strong = list(lines)[-1]
    labels: list[tuple[float, str, str, str]] = []
    for side, colour in COLOURS.items():
        level = zero[side][0]
        axes.axhline(level, color=colour, linewidth=1.1, linestyle=(0, (4, 3)))
        labels.append((level, f"zero-shot, {side} names  {level:.1f}", colour, "normal"))
        for name, curve in lines.items():
            mean, low, high = zip(*getattr(curve, side), strict=True)
            weight, alpha, width = ("bold", 1.0, 2.6) if name == strong else ("normal", 0.55, 1.2)
            axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.16 * alpha, linewidth=0)
            axes.plot(curve.epochs, mean, color=colour, alpha=alpha, linewidth=width)
            labels.append((mean[-1], f"{name}, {side} names  {mean[-1]:.1f}", colour, weight))
    axes.set_title("each side among its own names", fontsize=9.5, loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %")
    epochs = lines[strong].epochs
    axes.set_xlim(epochs[0], epochs[-1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(*axes.get_ylim())  # what is drawn decides; labels only move within it
    write_labels(axes, labels, gap=0.06, at=1.03, size=8.5)


def draw_stacking(document: dict[str, Any], axes: Any) -> None:
    """Joint accuracies while a constant is taken from the base names' logits; a dot where it is 0."""
    for index, (variant, colour) in enumerate(STACKED.items()):
        stacked = mean_stacked([c for c in document.get("stacking", ()) if Variant.of(c) == variant])
        if stacked is None:
            continue
        base, new = zip(*stacked.curve, strict=True)
        width = 2.4 if variant.ogen else 1.2
        axes.plot(base, new, color=colour, linewidth=width, label=named(*variant), zorder=2 + index)
        if stacked.zero is not None:
            axes.plot(*[[one] for one in stacked.zero], marker="o", markersize=6, color=colour, zorder=20 + index)
    axes.set_title("all names compete; line: at any constant, dot: at none", fontsize=9, loc="left")
    axes.set_xlabel("joint accuracy on base, %")
    axes.set_ylabel("on new, %")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="lower left")


def title(card: dict[str, Any], *, with_ogen: bool) -> str:
    """What was run and, with OGEN, whether its training was given the new names."""
    text = (
        f"{card['dataset']}, {card['backbone']['name']}, {card['shots']} shots, mean of {len(card['seeds'])} "
        "seeds (band: lowest to highest)"
    )
    if not with_ogen:
        return text
    given = card["new_names_known_in_training"]
    return text + "\nOGEN was given " + ("the new names, but no image of them" if given else "base names only")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--results", type=Path, default=TABLE, help="results file")
    parser.add_argument("--image", type=Path, default=None, help="picture (default: README's, for README's results)")
    parser.add_argument("--work", type=Path, default=None, help="keep the bench folder (report, runs) here")
    parser.add_argument("--epochs", type=int, default=BenchConfig().epochs, help="passes over the training images")
    parser.add_argument("--held-out-names", action="store_true", help="keep the new names from OGEN's training")
    parser.add_argument("--picture", action="store_true", help="only draw the picture from the results file")
    args = parser.parse_args()
    image = args.image or (PICTURE if args.results == TABLE else None)
    if not args.picture:
        config = BenchConfig(hosts=(HOST,), epochs=args.epochs, held_out=args.held_out_names, controls="all")
        run(config, args.results, args.work)
    if image is not None:
        draw(read_results(args.results), image)


if __name__ == "__main__":
    main()

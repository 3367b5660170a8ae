"""Run the published base-to-new table: CoOp against zero-shot on ``emoji-categories``.

    python benchmarks/base_to_new.py            # writes benchmarks/results/emoji-categories.json
    python benchmarks/base_to_new.py --picture  # only draws docs/images/base-to-new.png from that file

The same thing as ``ogen bench`` with its defaults; thumbnails are left out of the results file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from ogenlib.bench import BenchConfig, run_bench
from ogenlib.files import atomic_write, write_json
from ogenlib.plots import mean_curve, parting_epoch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "emoji-categories.json"
PICTURE = ROOT / "docs" / "images" / "base-to-new.png"
BASE, NEW, INK = "#0072b2", "#d55e00", "#222222"  # Okabe and Ito: told apart with any colour vision


def run(results: Path, work: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = shlex.join(["python", "benchmarks/base_to_new.py", *sys.argv[1:]])
        document = run_bench(BenchConfig(), work or Path(scratch), command=command, progress=True)
    for pair in document["confusions"]:
        pair.pop("thumbnails")
    write_json(results, document)


def draw(document: dict[str, Any], path: Path) -> None:
    """Base and new accuracy of CoOp over the epochs, zero-shot as dashed lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    home = document["protocol"]["home_domain"]
    zero = next(r for r in document["summary"] if (r["host"], r["domain"]) == ("zero_shot", home))
    curve = mean_curve([c for c in document["curves"] if c["host"] == "coop" and not c["ogen"]])
    levels = {"base": zero["base"][0], "new": zero["new"][0]}
    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=150, layout="constrained")
    for side, colour, bands in (("base", BASE, curve.base), ("new", NEW, curve.new)):
        mean, low, high = zip(*bands, strict=True)
        axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve.epochs, mean, color=colour, linewidth=2.2)
        axes.axhline(levels[side], color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        end = curve.epochs[-1]
        axes.annotate(f"CoOp, {side} names  {mean[-1]:.1f}", (end, mean[-1]), (8, 0), color=colour, va="center",
                      textcoords="offset points", fontsize=10, annotation_clip=False)  # fmt: skip
        axes.annotate(f"zero-shot, {side} names  {levels[side]:.1f}", (end, levels[side]), (8, 0), color=colour,
                      va="center", textcoords="offset points", fontsize=9, annotation_clip=False)  # fmt: skip
    part = parting_epoch(curve.epochs, curve.base_mean, curve.new_mean, levels["base"], levels["new"])
    if part is not None:
        axes.axvline(part, color=INK, linewidth=1, linestyle=":")
        axes.annotate(f"they part at epoch {part}", (part, axes.get_ylim()[1]), (5, -4), va="top", fontsize=9,
                      textcoords="offset points", color=INK)  # fmt: skip
    card = document["protocol"]
    axes.set_title(f"{card['dataset']}, {card['backbone']['name']}, {card['shots']} shots, mean of "
                   f"{len(card['seeds'])} seeds (band: lowest to highest)", fontsize=10, loc="left")  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(curve.epochs[0], curve.epochs[-1])
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="results file")
    parser.add_argument("--work", type=Path, default=None, help="keep the bench folder (report, runs) here")
    parser.add_argument("--picture", action="store_true", help="only draw the picture from the results file")
    args = parser.parse_args()
    if not args.picture:
        run(args.results, args.work)
    draw(json.loads(args.results.read_text(encoding="utf-8")), PICTURE)


if __name__ == "__main__":
    main()

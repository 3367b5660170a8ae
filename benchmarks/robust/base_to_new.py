"""Base-to-new for fine-tuning methods, each alone and with OGEN.

    python -m benchmarks.robust.base_to_new          # writes benchmarks/results/robust-base-to-new.json
    python -m benchmarks.robust.base_to_new choose   # OGEN's settings: benchmarks/results/robust-ogen-search.json

The tables are those of `hosts/study.py`: `emoji-categories`, 16 shots, trained on noto and tested on all icon sets that
ogen-tiny never saw, with all names of the dataset known to OGEN and no image of the new ones. Learning rates are those
of `robust/rates.py`. `choose` compares settings of OGEN on tasks that no table reports (`ogen/tasks.selection_tasks`).
Finished rows are kept in `--work` and read again; `--part 1/2` runs half of them and writes no results file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.common.kept_rows import kept_rows
from benchmarks.common.options import add_names, add_number, add_seeds, add_training, add_work, parser_of, part
from benchmarks.common.places import RESULTS
from benchmarks.common.results_file import write_results
from benchmarks.hosts.study import datasets_card, gains, host_variants, with_other_sets
from benchmarks.ogen.tasks import TAG_SETS, StudyTask, emoji_tasks, tag_task, task_card
from benchmarks.ogen.variants import Variant, apart, control_domains, has_control, make_host, of_task, row_of, summarize
from benchmarks.robust.rates import EPOCHS, PRECISION, RATES, chosen_rates, rate_of
from benchmarks.robust.world import KnownPixels, Seen, encoded, trained
from ogenlib import evaluate
from ogenlib.data import PixelBank
from ogenlib.towers import load_backbone

SCHEMA = "ogenlib.robust-base-to-new/1"
HOSTS = ("full_ft", "flyp", "r_adapter", "lipsum_ft")
CHOSEN_ON = ("full_ft", "flyp", "r_adapter")
# ALMT keeps up to ten snapshots of all that is trained, up to four with m_max 3, an average over steps one.
TEACHERS: dict[str, dict[str, Any]] = {
    "ALMT": {"teacher": "almt", "decay": 0.9}, "ALMT, m_max 3": {"teacher": "almt", "decay": 0.9, "m_max": 3},
    "ALMT, decay 0.99": {"teacher": "almt", "decay": 0.99},
    "EMA 0.99": {"teacher": "ema", "decay": 0.99}, "EMA 0.95": {"teacher": "ema", "decay": 0.95},
}  # fmt: skip
# What names without images are scored by, for methods whose text tower learns too; less pull to zero-shot.
SCORING: dict[str, dict[str, Any]] = {
    "tuned images": {"frozen_images": False}, "half zero-shot": {"zero_shot_share": 0.5},
    "no zero-shot": {"zero_shot_share": 0.0}, "KL 0.1": {"zero_shot_kl": 0.1},
    "half zero-shot, KL 0.1": {"zero_shot_share": 0.5, "zero_shot_kl": 0.1},
    "no zero-shot, KL 1": {"zero_shot_share": 0.0, "zero_shot_kl": 1.0},
}  # fmt: skip
SCORED = {f"EMA 0.99, {name}": {**TEACHERS["EMA 0.99"], **more} for name, more in SCORING.items()}
TRIED = {"full_ft": TEACHERS, "flyp": {**TEACHERS, **SCORED}, "r_adapter": {**TEACHERS, **SCORED}}


def run_one(
    variant: Variant,
    task: StudyTask,
    pixels: tuple[PixelBank, PixelBank],
    seed: int,
    epochs: int,
    precision: str,
    settings: Mapping[str, float],
) -> dict[str, Any]:
    """Train and test once; scores of each test domain, and of a method alone those of its control besides.

    The control has the method's logits for base names and zero-shot ones for new names.
    """
    host = make_host(variant, task)
    began, seconds = time.perf_counter(), 0.0
    if host.trainable():
        bank = KnownPixels.of(pixels[0], task.bank)
        trained(host, bank, precision, epochs=epochs, seed=seed, **settings)
        seconds = time.perf_counter() - began
    seen = evaluate.of_split(encoded(host, task.test, pixels[1], precision), task.split)
    logits = evaluate.predict_logits(Seen(host), seen, (*task.split.base, *task.split.new))
    outcome = evaluate.split_scores(logits, seen, task.split)
    row = row_of(variant, task, seed, epochs, host, outcome, began, **settings, seconds_fit=seconds)
    if has_control(variant, host):
        row["control"] = control_domains(task, logits)
    return row


def run_all(
    cells: Sequence[tuple[Variant, StudyTask, int]], args: argparse.Namespace, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """All rows, each kept under a name made of everything that decides it."""
    pixels_of = cache(lambda task: task.pixels())

    def decides(variant: Variant, task: StudyTask, seed: int) -> tuple[Any, ...]:
        return ("base-to-new", *of_task(variant, task), seed, args.epochs, args.precision, rate_of(variant.host, rates))

    def train(variant: Variant, task: StudyTask, seed: int) -> dict[str, Any]:
        return run_one(variant, task, pixels_of(task), seed, args.epochs, args.precision, rate_of(variant.host, rates))

    return kept_rows(cells, args.work, decides, train, prefix="new-", about="base-to-new")


def some_selection_tasks(count: int) -> list[StudyTask]:
    """The first of `ogen/tasks.selection_tasks`, by turns with base and new tags of the same and of other groups."""
    clip = load_backbone("ogen-tiny")
    return [tag_task(clip, TAG_SETS[i % 4], seed=(300 if i % 2 else 200) + i, apart=bool(i % 2)) for i in range(count)]


def search_variants(hosts: Sequence[str]) -> list[Variant]:
    """Zero-shot, each method alone, and with every setting that is tried for it."""
    variants = [Variant("zero-shot", "zero_shot")]
    for host in hosts:
        variants += [
            Variant("host alone", host),
            *(Variant(name, host, dict(more)) for name, more in TRIED[host].items()),
        ]
    return variants


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("what", nargs="?", choices=("table", "choose"), default="table", help="(table)")
    about = f"methods ({', '.join(HOSTS)}; choose: {', '.join(CHOSEN_ON)})"
    add_names(parser, "--hosts", sorted({*HOSTS, *TRIED}), None, about)
    add_seeds(parser)
    add_number(parser, "--tasks", 4, "selection tasks")
    add_training(parser, EPOCHS, PRECISION)
    parser.add_argument("--rates", type=Path, default=RATES, help="of the learning rates, by robust.rates")
    add_work(parser, "runs/robust")
    parser.add_argument("--out", type=Path, default=None, help="results file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    began, rates = time.perf_counter(), chosen_rates(args.rates)
    choose = args.what == "choose"
    hosts = tuple(args.hosts or (CHOSEN_ON if choose else HOSTS))
    if choose:
        tasks = some_selection_tasks(args.tasks)
        cells = [(v, task, 1) for v in search_variants(hosts) for task in tasks]
    else:
        by_seed = emoji_tasks(args.seeds, keep=args.work / "banks")
        tasks = [by_seed[args.seeds[0]]]
        cells = [(v, by_seed[s], s) for v in host_variants(["zero_shot", *hosts]) for s in args.seeds]
    rows = run_all(part(cells, args.part), args, rates)
    if args.part is not None:
        return
    rows = [one for row in rows for one in apart(row)]
    if not choose:
        rows = [with_other_sets(row) for row in rows]
    cards = {task.name: task_card(task) if choose else datasets_card(task) for task in tasks}
    card = {
        "study": f"robust-base-to-new, {args.what}",
        "backbone": tasks[0].clip.fingerprint(),
        "datasets": cards,
        "shots": 16,
        "views": 8,
        "seeds": sorted({row["seed"] for row in rows}),
        "epochs": args.epochs,
        "precision": args.precision,
        "rates": {host: rates[host] for host in hosts if host in rates},
        "settings": "each method's own in this library, but for the rates: chosen by robust.rates on validation "
        "images of emoji-categories; OGEN's default preset",
        "selection": "none: the last epoch is tested",
        "new_names_known_in_training": "by OGEN, without images",
        "arguments": {"hosts": list(hosts), "epochs": args.epochs, "precision": args.precision},
    }
    path = args.out or RESULTS / ("robust-ogen-search.json" if choose else "robust-base-to-new.json")
    parts = {} if choose else {"gains": gains(rows)}
    write_results(path, SCHEMA, "robust.base_to_new", card, began=began, rows=rows, summary=summarize(rows), **parts)


if __name__ == "__main__":
    main()

"""The tables of docs/hosts.md: every method with and without OGEN on all embedded datasets.

    python -m benchmarks.hosts.study                # writes benchmarks/results/hosts.json
    python -m benchmarks.hosts.study --part 1/2     # half of the runs and no results file; the other half is 2/2

Finished rows are kept in `--work` and read again: an interrupted run goes on, and after the parts one run without
`--part` writes the results. `emoji-categories` is trained on noto and tested on all icon sets that ogen-tiny never
saw; `emoji-concepts/*`, whose classes have one drawing in each set, are trained on three of those sets and tested on
the three others, noto among them. Every method has the settings this library gives it; none was chosen here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common.child import said_by
from benchmarks.common.groups import grouped
from benchmarks.common.options import add_names, add_number, add_seeds, add_work, parser_of, part
from benchmarks.common.results_file import read_results, write_results
from benchmarks.ogen.tasks import StudyTask, emoji_tasks, task_card
from benchmarks.ogen.variants import CONTROL, Variant, mean_scores, run_all, summarize
from ogenlib.data.emoji import emoji_datasets
from ogenlib.hosts import METHODS, method
from ogenlib.results import tables as results
from ogenlib.results.types import Score
from ogenlib.utils.documents import write_json

SCHEMA = "ogenlib.hosts/1"
HOME, OTHERS = "noto", "other sets"
EPOCHS, PIXEL_EPOCHS, COCOOP_EPOCHS = 50, 10, 5


def compared_hosts() -> list[str]:
    """Zero-shot, prompt learners and adapters; fine-tuning has a study of its own, `robust/study.py`."""
    return [name for name, cls in METHODS.items() if cls.info.kind != "fine-tuning"]


def host_variants(hosts: Sequence[str]) -> list[Variant]:
    """Each method alone, then with OGEN where it takes it."""
    variants = []
    for host in hosts:
        variants.append(Variant("host alone", host))
        if method(host).info.ogen:
            variants.append(Variant("ogenlib", host, {}))
    return variants


def epochs_of(host: str, args: argparse.Namespace) -> int:
    """Fewer for what cannot read cached features, and for CoCoOp, whose prompts are encoded once an image."""
    if host == "cocoop":
        return min(args.epochs, args.cocoop_epochs)
    return args.epochs if method(host).uses_cached_features else min(args.epochs, args.pixel_epochs)


def with_other_sets(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the mean of its scores on every icon set but noto as one more domain."""
    others = [scores for domain, scores in row["domains"].items() if domain != HOME]
    return {**row, "domains": {**row["domains"], OTHERS: mean_scores(others)}}


def gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired two-sided t-tests of every method with OGEN against the method alone, on noto and on the other sets.

    The pairs of a family of several datasets are the datasets, each the mean of its seeds: seeds of one dataset
    are not independent. Those of a single dataset are its seeds.
    """
    tests = []
    for family, own in grouped(rows, "family").items():
        unit = "task" if len({r["task"] for r in own}) > 1 else "seed"
        for domain in (HOME, OTHERS):
            means: list[Score] = []
            for (host, variant, value), runs in grouped(own, "host", "variant", unit).items():
                if variant.endswith(CONTROL):
                    continue
                means.append({"host": host, "ogen": variant == "ogenlib", "domain": domain, "seed": value})
                means[-1].update(mean_scores([run["domains"][domain] for run in runs]))
            for host, pair in grouped(means, "host").items():
                tests += [
                    {
                        "family": family,
                        "host": host,
                        "pairs": unit,
                        **{k: test[k] for k in ("domain", "metric", "difference", "p", "n")},
                    }
                    for test in results.paired_tests(pair, domain, reference="")
                ]
    return tests


def costs(rows: Sequence[dict[str, Any]], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """Of each method alone and with OGEN on the family of a single dataset (or the first): what training took, and
    the peak memory that was measured apart."""
    first = rows[0]["family"]
    methods = grouped((row for row in rows if row["family"] == first), "host", "variant")
    return [
        {"host": host, "variant": variant, "family": first, **cost_of(own), "peak_mib": peaks.get(f"{host} {variant}")}
        for (host, variant), own in methods.items()
    ]


def cost_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs, trained parameters, and the mean of the seconds of training."""
    return {
        "epochs": runs[0]["epochs"],
        "parameters": max(run["parameters"] for run in runs),
        "seconds": mean(run["seconds_fit"] for run in runs),
    }


def measure_peaks(variants: Sequence[Variant], work: Path) -> dict[str, float]:
    """MiB of each variant, by a program of its own each; kept in `work`."""
    keep = ("--keep", str((work / "banks").resolve()))
    peaks: dict[str, float] = {}
    prepared = False
    for variant in variants:
        path = work / f"peak-{variant.host}-{variant.name.replace(' ', '-')}.json"
        if not path.exists():
            if not prepared:
                said_by("hosts.peak_memory", *keep, variant.host, "--prepare")
                prepared = True
            ogen = [] if variant.ogen is None else ["--ogen"]
            write_json(path, said_by("hosts.peak_memory", *keep, variant.host, *ogen))
        peaks[f"{variant.host} {variant.name}"] = read_results(path)["peak_mib"]
    return peaks


def datasets_card(task: StudyTask) -> dict[str, Any]:
    """`task_card` with what the images were."""
    sets = {"test_domains": list(dict.fromkeys(task.test.domains))}
    data = {"train_data": task.bank.fingerprint["data"], "test_data": task.test.fingerprint["data"]}
    card = {k: v for k, v in task_card(task).items() if k not in ("epochs", "backbone")}
    return {**card, "train_domains": list(dict.fromkeys(task.bank.domains)), **sets, **data}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, "hosts.json")
    add_names(parser, "--hosts", METHODS, compared_hosts(), "methods (all but fine-tuning)")
    add_names(parser, "--datasets", emoji_datasets(), emoji_datasets(), "emoji-categories and emoji-concepts/* (all)")
    add_seeds(parser)
    add_number(parser, "--epochs", EPOCHS, "on cached features")
    add_number(parser, "--pixel-epochs", PIXEL_EPOCHS, "of methods that change the image side, at most --epochs")
    add_number(parser, "--cocoop-epochs", COCOOP_EPOCHS, "of CoCoOp, at most --epochs")
    add_work(parser, "runs/hosts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    began = time.perf_counter()
    variants = host_variants(args.hosts)
    rows: list[dict[str, Any]] = []
    cards: dict[str, Any] = {}
    backbone: dict[str, Any] = {}
    for name in args.datasets:
        tasks = emoji_tasks(args.seeds, name, keep=args.work / "banks")
        cells = [(v, tasks[s], s, epochs_of(v.host, args)) for v in variants for s in args.seeds]
        rows += [with_other_sets(row) for row in run_all(part(cells, args.part), args.work)]
        cards[name], backbone = datasets_card(tasks[args.seeds[0]]), tasks[args.seeds[0]].clip.fingerprint()
    if args.part is not None:
        return
    card = {
        "study": "hosts",
        "backbone": backbone,
        "datasets": cards,
        "shots": 16,
        "views": 8,
        "seeds": args.seeds,
        "epochs": {h: epochs_of(h, args) for h in args.hosts},
        "settings": "each method's own in this library; OGEN's default preset; none chosen on these tests",
        "selection": "none: the last epoch is tested",
        "new_names_known_in_training": "by OGEN, without images",
        "why_fewer_epochs": "a step on pixels takes some 25 times as long as CoOp's with 26 names, CoCoOp's 20 to "
        "40 times with 26 to 96 names",
        "seconds_of": "one training with what precedes its first epoch; other programs ran on the same machine",
        "memory": "highest resident set of a process that trains two epochs on emoji-categories, MiB",
        "arguments": {k: getattr(args, k) for k in ("hosts", "cocoop_epochs", "pixel_epochs")},
    }
    parts = {"gains": gains(rows), "costs": costs(rows, measure_peaks(variants, args.work))}
    write_results(args.out, SCHEMA, "hosts.study", card, began=began, rows=rows, summary=summarize(rows), **parts)


if __name__ == "__main__":
    main()

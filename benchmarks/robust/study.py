"""The tables of docs/robust.md: every fine-tuning method with WiSE-FT, VRF and OGEN, under shift and on other things.

    python -m benchmarks.robust.rates                # first: the learning rates, by validation images alone
    python -m benchmarks.robust.study                # writes benchmarks/results/robust.json
    python -m benchmarks.robust.study --part 1/2     # half of the runs and no results file; the other half is 2/2
    python -m benchmarks.robust.study --concepts     # fewer methods on all emoji-concepts: robust-concepts.json
    python -m benchmarks.robust.study --picture      # only draws docs/images/robust-*.svg from that file

The protocol is that of ``ogen bench --protocol domain-shift``: train on noto (`emoji-categories`) or on three icon sets
(`emoji-concepts/*`), all images of a class but the validation ones; test there, in every other icon set, and on every
other embedded dataset. Of a shift or another dataset at most `--most` images are tested, the same ones in every run.
Finished runs are kept in `--work` and read again: an interrupted study goes on, and after the parts one run without
`--part` writes the results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.groups import grouped
from benchmarks.common.kept_rows import kept_rows
from benchmarks.common.options import (
    add_many,
    add_names,
    add_number,
    add_seeds,
    add_training,
    add_work,
    parser_of,
    part,
)
from benchmarks.common.places import RESULTS
from benchmarks.common.results_file import read_results, write_results
from benchmarks.hosts.study import cost_of, host_variants
from benchmarks.ogen.variants import Variant, trained_parameters
from benchmarks.robust.pictures import draw
from benchmarks.robust.rates import EPOCHS, PRECISION, RATES, chosen_rates, rate_of
from benchmarks.robust.world import MOST, VIEWS, World, make_host, trained, world
from ogenlib.bench.config import ALPHAS
from ogenlib.data.emoji import emoji_datasets
from ogenlib.hosts import METHODS, Host
from ogenlib.merge.wise import interpolated, obstacle, start_state
from ogenlib.results.robustness import ZERO_SHOT, robustness_tables
from ogenlib.results.types import Robustness
from ogenlib.runs.config import ALL_SHOTS

SCHEMA = "ogenlib.robust/2"
FIRST = ("full_ft", "lipsum_ft", "r_adapter", "flyp", "arf")
WITH_OGEN = ("full_ft", "lipsum_ft", "r_adapter", "flyp", "arf")


class Row(Robustness):
    """One training of the study, tested."""

    task: str
    variant: str
    epochs: int
    seconds_fit: float
    seconds_all: float
    parameters: int


def fine_tuning_hosts() -> list[str]:
    """Zero-shot, the papers' methods and what they are measured by, and every other one that trains towers."""
    others = (name for name, cls in METHODS.items() if cls.info.kind == "fine-tuning" and name not in FIRST)
    return [ZERO_SHOT, *FIRST, "linear_probe", *others]


def run_one(variant: Variant, here: World, seed: int, epochs: int, settings: Mapping[str, float]) -> dict[str, Any]:
    """Train once; test the end, every alpha, and VRF in both forms."""
    host = make_host(variant, here, seed)
    seconds, others, learns = 0.0, {}, bool(host.trainable())
    began = time.perf_counter()
    if learns:
        bank = here.bank(host, seed)
        began = time.perf_counter()
        trained(host, bank, here.precision, epochs=epochs, seed=seed, **settings)
        seconds = time.perf_counter() - began
    seen = here.encode(host)
    end = here.scores(host, seen)
    if learns:
        others = here.vrf_points(host, bank, seen)
    curve, reason = curve_of(host, here, end)
    return {
        "task": here.plan.source.name,
        "variant": variant.name,
        "host": variant.host,
        "ogen": variant.ogen is not None,
        "seed": seed,
        "epochs": epochs if learns else 0,
        **settings,
        "seconds_fit": seconds,
        "seconds_all": time.perf_counter() - began,
        "parameters": trained_parameters(host),
        **end,
        "curve": curve,
        "why_no_curve": reason,
        "others": others,
    }


def curve_of(host: Host, here: World, end: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, str | None]:
    """`end` and the scores at every other alpha; or none, and why. A start that is zero-shot is not tested again."""
    reason = obstacle(host)
    if reason is not None:
        return None, reason
    start, curve = start_state(host), []
    for alpha in here.judge.alphas:
        scores = end
        if alpha < 1:
            with interpolated(host, alpha, start):
                as_before = alpha == 0 and here.is_zero_shot(host)
                scores = here.zero_shot_scores if as_before else here.scores(host)
        curve.append({"alpha": alpha, **scores})
    return curve, None


def run_all(
    cells: Sequence[tuple[Variant, World, int, int]], work: Path, rates: Mapping[str, float] | None = None
) -> list[Row]:
    """All rows, each kept in `work` under a name made of everything that decides it."""
    rates = rates or {}

    def decides(variant: Variant, here: World, seed: int, epochs: int) -> tuple[Any, ...]:
        card = {k: v for k, v in here.plan.card.items() if k != "effective_robustness"}  # of the table, not of a run
        source = here.plan.source
        return (
            asdict(variant),
            card,
            source.hash(),
            source.train.hash(),
            rate_of(variant.host, rates),
            here.clip.weights_hash,
            here.shots,
            seed,
            epochs,
            VIEWS,
            here.most,
            here.precision,
            SCHEMA,
        )

    def train(variant: Variant, here: World, seed: int, epochs: int) -> dict[str, Any]:
        return run_one(variant, here, seed, epochs, rate_of(variant.host, rates))

    return kept_rows(cells, work, decides, train)


def tables(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows with their points, and the means over seeds, by dataset."""
    done: dict[str, Any] = {"rows": [], "summary": []}
    for task, own in grouped(rows, "task").items():
        own_tables = robustness_tables(own)
        done["rows"] += own_tables["robustness"]
        done["summary"] += [{"task": task, **entry} for entry in own_tables["robustness_summary"]]
    return done


def costs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each method alone and with OGEN: what training took on the first dataset."""
    methods = grouped((row for row in rows if row["task"] == rows[0]["task"]), "host", "ogen")
    return [{"host": host, "ogen": ogen, **cost_of(own)} for (host, ogen), own in methods.items()]


def study_variants(hosts: Sequence[str], with_ogen: Sequence[str]) -> list[Variant]:
    """Zero-shot, then each method alone, and with OGEN where it is asked for."""
    every = host_variants(list(dict.fromkeys([ZERO_SHOT, *hosts])))
    return [variant for variant in every if variant.ogen is None or variant.host in with_ogen]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    about = "methods (zero-shot, linear probe and all of fine-tuning)"
    add_names(parser, "--hosts", METHODS, fine_tuning_hosts(), about)
    parser.add_argument(
        "--ogen",
        nargs="*",
        choices=list(METHODS),
        default=list(WITH_OGEN),
        metavar="NAME",
        help=f"methods that are run with OGEN too ({', '.join(WITH_OGEN)})",
    )
    about = "trained on, each by itself (emoji-categories)"
    add_names(parser, "--datasets", emoji_datasets(), ["emoji-categories"], about)
    parser.add_argument(
        "--concepts", action="store_true", help="the papers' methods on each of the emoji-concepts, without OGEN"
    )
    add_seeds(parser)
    add_training(parser, EPOCHS, PRECISION)
    parser.add_argument("--shots", type=int, default=ALL_SHOTS, help="training images of a class, 0 for all (0)")
    add_many(parser, "--alphas", ALPHAS, f"of WiSE-FT ({', '.join(map(str, ALPHAS))})")
    parser.add_argument("--domains", nargs="+", default=None, help="icon sets to test on (all)")
    parser.add_argument("--retention", nargs="+", default=[], help="datasets of other things (all embedded ones)")
    add_number(parser, "--most", MOST, "test images of a shift or another dataset")
    parser.add_argument("--rates", type=Path, default=RATES, help="of the learning rates, by robust.rates")
    parser.add_argument("--picture", action="store_true", help="only draw the pictures from the results file")
    add_work(parser, "runs/robust")
    parser.add_argument("--out", type=Path, default=None, help="results file")
    args = parser.parse_args(argv)
    if args.concepts:
        args.datasets = [name for name in emoji_datasets() if name.startswith("emoji-concepts/")]
        args.hosts, args.ogen = [ZERO_SHOT, *FIRST], []
    args.out = args.out or RESULTS / ("robust-concepts.json" if args.concepts else "robust.json")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.picture:
        draw(read_results(args.out))
        return
    began = time.perf_counter()
    variants, rates = study_variants(args.hosts, args.ogen), chosen_rates(args.rates)
    rows: list[Row] = []
    cards: dict[str, Any] = {}
    backbone: dict[str, Any] = {}
    for name in args.datasets:
        here = world(name, args.hosts, args)
        # A seed changes nothing without training: zero-shot's rows are one run, read again.
        cells = [(v, here, s, args.epochs) for v in variants for s in args.seeds]
        rows += run_all(part(cells, args.part), args.work, rates)
        data = here.plan.source
        cards[name] = {
            "data_hash": data.hash(),
            "train_images": len(data.train),
            "names": len(here.plan.known),
            **here.plan.card,
        }
        backbone = here.clip.fingerprint()
    if args.part is not None:
        return
    card = {
        "study": "robust",
        "backbone": backbone,
        "datasets": cards,
        "shots": args.shots or "all",
        "views": VIEWS,
        "seeds": args.seeds,
        "epochs": args.epochs,
        "alphas": args.alphas,
        "precision": args.precision,
        "test_images": f"all of the domain of training; of a shift or another dataset at most {args.most}, drawn "
        "once by their keys",
        "rates": {host: rates[host] for host in args.hosts if host in rates},
        "settings": "each method's own in this library, but for the rates: chosen by robust.rates on validation "
        "images of emoji-categories; OGEN's default preset; none chosen on these tests",
        "selection": "the last epoch is tested; WiSE-FT's alpha and VRF's temperatures are those of validation "
        "images of the domain of training",
        "seconds_of": "one training with what precedes its first epoch, features of the frozen tower at hand; "
        "other programs ran on the same machine",
        "arguments": arguments(args),
    }
    parts = {**tables(rows), "costs": costs(rows)}
    document = write_results(args.out, SCHEMA, "robust.study", card, began=began, **parts)
    if args.out == RESULTS / "robust.json":
        draw(document)


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, without paths of this machine."""
    return {k: v for k, v in vars(args).items() if not isinstance(v, Path) and k not in ("part", "picture")}


if __name__ == "__main__":
    main()

"""``ogen bench``: methods trained on some names and tested on others."""

from __future__ import annotations

import argparse

from ogenlib.bench.config import BenchConfig
from ogenlib.bench.protocols.registry import NO_TARGETS, PROTOCOLS
from ogenlib.cli.command import Command
from ogenlib.cli.options import TRAINING, add_fields, add_inputs, add_ogen, refuse_given, values_of
from ogenlib.cli.printing import command_line, note

ASKED = (
    "protocol", "targets", "suite", "shots_list", "train_domain", "retention", "alphas", "hosts", "measure_every",
    "seeds",
)  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    add_fields(parser, BenchConfig, ASKED)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="the same path in less than a minute: 1 seed, 2 views, 4 epochs and 4 images of a class at most, fewer "
        "domains, alphas and numbers of images",
    )
    add_inputs(parser)
    group = add_ogen(parser)
    which = group.add_mutually_exclusive_group()
    for flag, mode, text in (
        ("--both", "both", "every host without OGEN and with it"),
        ("--ogen", "yes", "hosts with OGEN only, beside zero-shot"),
        ("--no-ogen", "no", "hosts without OGEN only"),
    ):
        which.add_argument(flag, dest="ogen", action="store_const", const=mode, default="both", help=text)
    add_fields(group, BenchConfig, ["controls", "held_out"])


def run(args: argparse.Namespace) -> None:
    from ogenlib.bench.runner import run_bench
    from ogenlib.bench.suite import run_suite
    from ogenlib.report.text import summary_text

    check_options(args)
    config = BenchConfig(**values_of(args, BenchConfig))
    if args.smoke:
        config = config.smoke()
    bench = run_suite if config.suite else run_bench
    document = bench(config, args.out, command=command_line(), progress=not args.quiet)
    home = document["protocol"]["home_domain"]
    where = f" tested on {home}" if home else ""
    numbers = ", ".join(str(n or "all") for n in config.all_shots())
    trained = PROTOCOLS[config.protocol].shown.trained[1]
    shots = f"{numbers} shots" if numbers else f"{document['protocol']['n_base']} training {trained}"
    note(args, f"\n{document['protocol']['dataset']}{where}, {shots}, {len(config.seeds)} seed(s)")
    note(args, summary_text(document))
    note(args, f"\nreport   {args.out / 'report.html'}\nresults  {args.out / 'results.json'}")


def check_options(args: argparse.Namespace) -> None:
    """ValueError for options that the protocol or the methods do not use.

    Epochs and precision stand in the protocol card and may always be given. What does not depend on whether an option
    was given is refused by `BenchConfig`.
    """
    from ogenlib.data import list_datasets
    from ogenlib.hosts import method

    if PROTOCOLS[args.protocol].no_shots:
        refuse_given(args, ["shots"], PROTOCOLS[args.protocol].no_shots)
    if args.suite is not None:
        refuse_given(args, ["dataset"], f"--suite {args.suite} names the datasets")
    classes = [method(host) for host in args.hosts]
    if all(cls.training_free or cls.info.kind == "baseline" for cls in classes):
        refuse_given(args, TRAINING, f"{', '.join(args.hosts)} takes no training steps")
    named = [args.dataset, *args.targets, *args.retention]
    if args.root is not None and args.suite is None and all(n in (*list_datasets(), NO_TARGETS) for n in named):
        raise ValueError(f"--root {args.root} has no effect: {', '.join(named)} is bundled; leave it out")


COMMAND = Command("bench", "train methods on some names, test them on others, write a report", options, run, seeds=True)

"""``ogen train``: one method on class names, saved as a run."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ogenlib.cli.command import Command
from ogenlib.cli.inputs import read_names
from ogenlib.cli.options import TRAINING, add_fields, add_inputs, add_ogen, add_pairs, refuse_given, values_of
from ogenlib.cli.printing import command_line, note
from ogenlib.cli.settings import host_options, pair
from ogenlib.cli.values import Given, file_name, flag, was_given
from ogenlib.runs.config import RunConfig

STEPS = (*TRAINING, "precision", "epochs")  # options of training by steps
IMAGES = ("shots", "views")  # options of training images
OGEN = ("preset", "ogen_set", "unknown", "unknown_file")


def options(parser: argparse.ArgumentParser) -> None:
    add_fields(parser, RunConfig, ["host"])
    parser.add_argument(
        "--names",
        action=Given,
        type=file_name,
        default=None,
        metavar="FILE",
        help="train on these class names only, one a line; default: all of the dataset",
    )
    add_fields(parser, RunConfig, ["context"])
    add_pairs(parser, RunConfig, "options", "--set", pair)
    add_inputs(parser)
    group = add_ogen(parser)
    add_fields(group, RunConfig, ["ogen"])
    names = group.add_mutually_exclusive_group()
    add_fields(names, RunConfig, ["unknown"])
    names.add_argument(
        "--unknown-file",
        action=Given,
        type=file_name,
        metavar="FILE",
        default=None,
        help="the same from a file, one a line (default: none)",
    )


def run(args: argparse.Namespace) -> None:
    from ogenlib.runs.training import train_run
    from ogenlib.utils import distributed

    with distributed.group(args.device):
        trained = train_run(config_of(args), args.out, command=command_line(), progress=not args.quiet)
    if trained is None:
        return
    skipped = f" ({len(trained.skipped)} unreadable images left out)" if trained.skipped else ""
    method = trained.host.inner.info.name + " + OGEN" * args.ogen
    note(args, f"trained {method} on {trained.images} images of {len(trained.host.names)} classes{skipped}")
    note(args, f"run      {args.out}\ntry      ogen predict {args.out} IMAGE")


def config_of(args: argparse.Namespace) -> RunConfig:
    """The settings, once every option has an effect.

    Raises:
        FileNotFoundError, ValueError: options that do not fit each other, or a file of names that cannot be read.
    """
    from ogenlib.hosts import method_name

    host, pairs = method_name(args.host), args.set or []
    given = [option for option in OGEN if was_given(args, option) or (option == "ogen_set" and args.ogen_set)]
    names = {"host": host, "names": None, "unknown": None}  # read below, once all else fits
    config = RunConfig(**{**values_of(args, RunConfig), **names})
    if given and not args.ogen:
        raise ValueError(f"{flag(given[0])} is an option of OGEN; add --ogen, or leave it out")
    check_options(args, host)
    unknown = read_names(args.unknown_file) if args.unknown_file is not None else args.unknown
    return replace(
        config,
        options=host_options(host, pairs),
        names=None if args.names is None else tuple(read_names(args.names)),
        unknown=None if unknown is None else tuple(dict.fromkeys(unknown)),
    )


def check_options(args: argparse.Namespace, host: str) -> None:
    """ValueError for options that the method does not use."""
    from ogenlib.hosts import method, takes_option

    cls = method(host)
    if cls.info.kind == "baseline":
        refuse_given(args, [*STEPS, *IMAGES], f"{host} trains nothing")
    if cls.training_free:
        refuse_given(args, STEPS, f"{host} keeps its training images as they are and takes no steps")
    if args.context is not None and not takes_option(cls, "context"):
        raise ValueError(
            f"--context has no effect: {host} has no words to learn; leave it out, or take a prompt learner "
            "(ogen methods)"
        )
    if args.context is not None and "context" in dict(args.set or ()):
        raise ValueError("--context and --set context=... both set the context; leave one out")


COMMAND = Command("train", "train one method on class names and save the run", options, run)

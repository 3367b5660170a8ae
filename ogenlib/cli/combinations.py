"""Options that would have no effect beside others: refused, because who gives one expects it to count."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ogenlib.bench.config import NO_TARGETS, PROTOCOLS
from ogenlib.cli.values import flag, was_given
from ogenlib.data import list_datasets
from ogenlib.hosts import Host, method, takes_option

STEPS = ("lr", "batch_size", "optimizer", "precision", "epochs")  # options of training by steps
IMAGES = ("shots", "views")  # options of training images


def check_train(args: argparse.Namespace, pairs: Sequence[tuple[str, object]]) -> None:
    """ValueError for options of ``ogen train`` that its method does not use; `pairs` are those of ``--set``."""
    cls = method(args.host)
    if trains_nothing(cls):
        _refuse(args, [*STEPS, *IMAGES], f"{args.host} trains nothing")
    if cls.training_free:
        _refuse(args, STEPS, f"{args.host} keeps its training images as they are and takes no steps")
    if args.context is not None and not takes_option(cls, "context"):
        raise ValueError(
            f"--context has no effect: {args.host} has no words to learn; leave it out, or take a prompt "
            "learner (ogen methods)"
        )
    if args.context is not None and "context" in dict(pairs):
        raise ValueError("--context and --set context=... both set the context; leave one out")


def check_bench(args: argparse.Namespace) -> None:
    """ValueError for options of ``ogen bench`` that its protocol or its methods do not use.

    Epochs and precision stand in the protocol card and may always be given. What does not depend on whether an option
    was given is refused by `BenchConfig`.
    """
    if PROTOCOLS[args.protocol].no_shots:
        _refuse(args, ["shots"], PROTOCOLS[args.protocol].no_shots)
    if args.suite is not None:
        _refuse(args, ["dataset"], f"--suite {args.suite} names the datasets")
    if not any(trains_by_steps(method(host)) for host in args.hosts):
        _refuse(args, STEPS[:3], f"{', '.join(args.hosts)} takes no training steps")
    named = [args.dataset, *args.targets, *args.retention]
    if args.root is not None and args.suite is None and all(n in (*list_datasets(), NO_TARGETS) for n in named):
        raise ValueError(f"--root {args.root} has no effect: {', '.join(named)} is bundled; leave it out")


def check_data(args: argparse.Namespace) -> None:
    """ValueError for options of ``ogen data`` that its action does not use."""
    named = f"data {args.action}"
    if args.action == "list":
        _refuse(args, ["name", "root", "split", "read", "skip_bad"], f"{named} lists what there is")
    if args.action == "check":
        _refuse(args, ["split"], f"{named} looks at every split")
    if args.action == "check" and args.root is not None:
        _refuse(args, ["skip_bad"], f"{named} --root counts what cannot be read")
    else:
        _refuse(args, ["read"], "it is for data check with --root; without, every image is decoded anyway")


def trains_nothing(cls: type[Host]) -> bool:
    """Whether a method is nothing but the model it is given."""
    return cls.info.kind == "baseline"


def trains_by_steps(cls: type[Host]) -> bool:
    """Whether a method has a learning rate."""
    return not (cls.training_free or trains_nothing(cls))


def _refuse(args: argparse.Namespace, options: Sequence[str], why: str) -> None:
    """ValueError for the options among these that were given."""
    given = ["NAME" if o == "name" else flag(o) for o in options if was_given(args, o)]
    if given:
        has, it = ("has", "it") if len(given) == 1 else ("have", "them")
        raise ValueError(f"{', '.join(given)} {has} no effect: {why}; leave {it} out")

"""``ogen data``: which datasets there are, whether one can be read, and what it looks like."""

from __future__ import annotations

import argparse
from pathlib import Path

from ogenlib.cli.command import Command, out_if_asked
from ogenlib.cli.inputs import images_of
from ogenlib.cli.options import add_fields, add_split, refuse_given
from ogenlib.cli.printing import note, printed_or_written
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.values import Given, word
from ogenlib.runs.config import InputConfig

SHEET_IMAGES = 96  # pictures on a contact sheet


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=["list", "check", "show"],
        help="list the names; check every image, or a published dataset's files; show a sheet",
    )
    parser.add_argument(
        "name",
        action=Given,
        type=word,
        nargs="?",
        default="emoji-categories",
        metavar="NAME_OR_PATH",
        help="which dataset",
    )
    add_fields(parser, InputConfig, ["root", "skip_bad"])
    parser.add_argument("--read", action="store_true", help="with check and --root: decode every image too")
    add_split(parser, "test", "what `show` draws from")


def writes(args: argparse.Namespace) -> Path | None:
    return args.out if args.action == "show" else out_if_asked(args)


def check_options(args: argparse.Namespace) -> None:
    """ValueError for options that the action does not use."""
    named = f"data {args.action}"
    if args.action == "list":
        refuse_given(args, ["name", "root", "split", "read", "skip_bad"], f"{named} lists what there is")
    if args.action == "check":
        refuse_given(args, ["split"], f"{named} looks at every split")
    if args.action == "check" and args.root is not None:
        refuse_given(args, ["skip_bad"], f"{named} --root counts what cannot be read")
    else:
        refuse_given(args, ["read"], "it is for data check with --root; without, every image is decoded anyway")


def run(args: argparse.Namespace) -> None:
    check_options(args)
    {"list": _list, "check": _check, "show": _show}[args.action](args)


def _list(args: argparse.Namespace) -> None:
    from ogenlib.data import list_datasets, list_suite, load_dataset

    every = {name: load_dataset(name) for name in list_datasets()}
    counted = [
        {"name": name, "classes": len(one.classnames), "train": len(one.train), "test": len(one.test)}
        for name, one in every.items()
    ]
    printed_or_written(args, counted, "datasets.json")
    for one in counted:
        say(f"{one['name']:<34} {one['classes']:>4} classes {one['train']:>6} train {one['test']:>6} test")
    say(f"with --root DIR: {', '.join(list_suite())}")


def _check(args: argparse.Namespace) -> None:
    from ogenlib.data import check_dataset, check_suite, load_dataset

    if args.root is not None:
        suite_report = check_suite(args.name, args.root, read=args.read, progress=not args.quiet)
        lines, wrong = suite_report.lines(), None if suite_report.ok else suite_report.summary()
    else:
        report = check_dataset(load_dataset(args.name, skip_bad=args.skip_bad))
        lines, wrong = report.lines(), None
        if report.problems:
            first = report.problems[0]
            wrong = (
                f"{len(report.problems)} images cannot be read, the first: {first.file} ({first.reason}); replace "
                "them, or pass skip_bad=True to leave them out"
            )
    printed_or_written(args, [{"name": args.name, "ok": wrong is None, "lines": lines}], "check.json")
    say("\n".join(map(printable, lines)))
    if wrong is not None:
        raise ValueError(wrong)


def _show(args: argparse.Namespace) -> None:
    from ogenlib.data import load_dataset
    from ogenlib.data.sheet import contact_sheet
    from ogenlib.utils.files import atomic_write

    dataset = load_dataset(args.name, root=args.root, skip_bad=args.skip_bad)
    images = images_of(dataset, args.split)
    step = max(1, len(images) // SHEET_IMAGES)
    chosen = range(0, len(images), step)[:SHEET_IMAGES]
    sheet = contact_sheet([images.open(i) for i in chosen], [images.classnames[images[i].label] for i in chosen])
    path = args.out / f"{dataset.name.replace('/', '-')}-{args.split}.png"
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")
    note(args, f"sheet    {path} ({len(chosen)} of {len(images)} images)")


COMMAND = Command("data", "list, check or show datasets", options, run, writes)

"""``ogen predict``: names of images by a saved run."""

from __future__ import annotations

import argparse

from ogenlib.cli.command import Command, out_if_asked
from ogenlib.cli.inputs import check_images, given_names
from ogenlib.cli.options import add_names, add_run
from ogenlib.cli.printing import printed_or_written
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.values import Given, file_name, positive


def options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("images", type=file_name, nargs="+", metavar="IMAGE", help="image files")
    add_names(parser, "names", "choose among these, or those in a file, one a line; default: the run's own")
    add_names(parser, "add_names", "names to choose among besides, or a file with one a line (default: none)")
    parser.add_argument("--top-k", action=Given, type=positive, default=3, metavar="N", help="names shown for an image")
    parser.add_argument(
        "--json", action="store_true", help="print JSON; with this or --out, predictions.json is written"
    )


def run(args: argparse.Namespace) -> None:
    names, more = given_names(args.names), given_names(args.add_names)
    check_images(args.images)
    from ogenlib.runs.saved import Classifier

    classifier = Classifier.load(args.folder, device=args.device, download=args.download)
    if names is not None:
        classifier = classifier.with_names(names)
    if more is not None:
        classifier = classifier.with_names(more, add=True)
    predictions = classifier.predict(args.images, top_k=args.top_k)
    entries = [
        {"image": str(path), "names": list(p.names), "probabilities": list(p.probabilities)}
        for path, p in zip(args.images, predictions, strict=True)
    ]
    if printed_or_written(args, entries, "predictions.json"):
        return
    for path, p in zip(args.images, predictions, strict=True):
        chances = zip(p.names, p.probabilities, strict=True)
        say(f"{printable(str(path))}: " + ", ".join(f"{printable(n)} {100 * chance:.1f}%" for n, chance in chances))


COMMAND = Command("predict", "name images with a saved run", options, run, out_if_asked)

"""``ogen predict``, ``ogen export`` and ``ogen words``: what a saved run is good for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ogenlib.analysis.words import METRICS, nearest_words
from ogenlib.cli.inputs import check_images, given_names
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.values import file_name, number, out_if_asked, positive, word
from ogenlib.export.onnx import export_onnx
from ogenlib.export.open_clip import export_head, export_open_clip
from ogenlib.hosts import Host
from ogenlib.merge.states import check_alpha
from ogenlib.merge.wise import wise_ft
from ogenlib.runs.saved import Classifier, load_run
from ogenlib.utils.documents import write_json
from ogenlib.utils.files import refuse_existing

FORMATS = ("open-clip", "head", "onnx")


def printed_or_written(args: argparse.Namespace, rows: list[dict[str, Any]], name: str) -> bool:
    """Write what a command found to --out, if asked, and print it as JSON with --json; whether it was printed."""
    folder = out_if_asked(args)
    if folder is not None:
        write_json(folder / name, rows)
    if getattr(args, "json", False):
        print(json.dumps(rows, indent=1))
        return True
    return False


def predict(args: argparse.Namespace) -> None:
    names, more = given_names(args.names), given_names(args.add_names)
    check_images(args.images)
    classifier = Classifier.load(args.folder, device=args.device, download=args.download)
    if names is not None:
        classifier = classifier.with_names(names)
    if more is not None:
        classifier = classifier.with_names(more, add=True)
    predictions = classifier.predict(args.images, top_k=args.top_k)
    rows = [
        {"image": str(path), "names": list(p.names), "probabilities": list(p.probabilities)}
        for path, p in zip(args.images, predictions, strict=True)
    ]
    if printed_or_written(args, rows, "predictions.json"):
        return
    for path, p in zip(args.images, predictions, strict=True):
        chances = zip(p.names, p.probabilities, strict=True)
        say(f"{printable(str(path))}: " + ", ".join(f"{printable(n)} {100 * chance:.1f}%" for n, chance in chances))


def run_at(args: argparse.Namespace) -> Host:
    """The saved run, or with --alpha what WiSE-FT makes of it."""
    host = load_run(args.folder, device=args.device, download=args.download)
    return host if args.alpha is None else wise_ft(host, args.alpha)


def _alpha(text: str) -> float:
    try:
        return check_alpha(number(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_alpha(parser: argparse.ArgumentParser) -> None:
    """Declare --alpha, for commands that read a run with `run_at`."""
    parser.add_argument(
        "--alpha",
        type=_alpha,
        default=None,
        metavar="A",
        help="tensors between where training began (0) and where it ended (1), as WiSE-FT does; "
        "default: where it ended",
    )


def add_download(parser: argparse.ArgumentParser) -> None:
    """Declare --download, for commands that open a saved run."""
    parser.add_argument(
        "--download", action="store_true", help="let the run's model be fetched from a hub, if that is where it is from"
    )


def beside_out(args: argparse.Namespace) -> Path:
    """Where a command writes that makes the folder --out itself, whole or not at all."""
    return args.out.parent


def export(args: argparse.Namespace) -> None:
    if args.no_tower and args.format != "head":
        raise ValueError(f"--no-tower is an option of --format head, not of {args.format}; leave it out")
    refuse_existing(args.out)
    names = given_names(args.names)
    host = run_at(args)
    if args.format == "open-clip":
        folder = export_open_clip(host, args.out, names)
    elif args.format == "onnx":
        folder = export_onnx(host, args.out, names)
    else:
        folder = export_head(host, args.out, names, tower=not args.no_tower)
    if not args.quiet:
        for path in sorted(folder.iterdir()):
            say(f"{path.stat().st_size / 1e6:>8.1f} MB  {path}")
        if args.format == "open-clip":
            say(f"open it with open_clip.create_model_and_transforms('local-dir:{folder}')")


def words(args: argparse.Namespace) -> None:
    host = load_run(args.folder, device=args.device, download=args.download)
    tokens = nearest_words(host, args.k, metric=args.metric)
    if printed_or_written(args, [asdict(token) for token in tokens], "words.json"):
        return
    for token in tokens:
        of = f"{printable(token.name)}, " if token.name is not None else ""
        near = ", ".join(f"{printable(w.text)} ({getattr(w, args.metric):.3f})" for w in token.words)
        say(f"{of}token {token.index + 1} (length {token.norm:.3f}): {near}")


def add_commands(
    command: Callable[..., argparse.ArgumentParser], common: Callable[[argparse.ArgumentParser, str], Any]
) -> None:
    """Declare the commands of this file.

    Args:
        command: makes the parser of a command from its name, its function and where it writes (as
            `ogenlib.cli.parser.build_parser` says; without: to --out).
        common: adds the options that every command takes, given its default for --out.
    """
    p = command("predict", predict, out_if_asked)
    p.add_argument("folder", type=file_name, metavar="RUN", help="folder of a saved run")
    p.add_argument("images", type=file_name, nargs="+", metavar="IMAGE", help="image files")
    p.add_argument(
        "--names",
        type=word,
        nargs="+",
        default=None,
        metavar="NAME",
        help="choose among these, or those in a file, one a line; default: the run's own",
    )
    p.add_argument(
        "--add-names",
        type=word,
        nargs="+",
        default=None,
        metavar="NAME",
        help="names to choose among besides, or a file with one a line (default: none)",
    )
    p.add_argument("--top-k", type=positive, default=3, metavar="N", help="names shown for an image")
    p.add_argument("--json", action="store_true", help="print JSON; with this or --out, predictions.json is written")
    add_download(p)
    common(p, "runs/predict")

    p = command("export", export, beside_out)
    p.add_argument("folder", type=file_name, metavar="RUN", help="folder of a saved run")
    p.add_argument(
        "--format",
        choices=FORMATS,
        default="open-clip",
        help="open-clip: a folder that open_clip opens, with the class weights beside the model; head: "
        "class weights and image tower; onnx: pixels to logits (needs ogenlib[onnx])",
    )
    p.add_argument(
        "--names",
        type=word,
        nargs="+",
        default=None,
        metavar="NAME",
        help="weights of these names, or those in a file, one a line; default: the run's own",
    )
    p.add_argument("--no-tower", action="store_true", help="with head: leave the image tower out")
    add_alpha(p)
    add_download(p)
    common(p, "runs/export")

    p = command("words", words, out_if_asked)
    p.add_argument("folder", type=file_name, metavar="RUN", help="folder of a saved run of a prompt learner")
    p.add_argument("--k", type=positive, default=5, metavar="N", help="words shown for a context token")
    p.add_argument("--metric", choices=METRICS, default="euclidean", help="distance that orders the words")
    p.add_argument(
        "--json", action="store_true", help="print JSON with both distances; with this or --out, words.json is written"
    )
    add_download(p)
    common(p, "runs/words")

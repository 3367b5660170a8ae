"""``ogen predict``, ``ogen export`` and ``ogen words``: what a saved run is good for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ogenlib.cli_settings import positive
from ogenlib.export import export_head, export_open_clip
from ogenlib.hosts import Host
from ogenlib.onnx_graph import export_onnx
from ogenlib.runs import Classifier, load_run
from ogenlib.utils.documents import write_json
from ogenlib.wise import wise_ft
from ogenlib.words import METRICS, nearest_words

FORMATS = ("open-clip", "head", "onnx")


def read_names(path: Path) -> list[str]:
    """Class names, one a line; blank lines and repeated names are refused."""
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or not names:
        raise ValueError(f"{path} must hold class names, one a line, each once; " +
                         (f"it repeats {twice[:3]}" if twice else "it is empty"))  # fmt: skip
    return names


def given_names(values: Sequence[str] | None) -> list[str] | None:
    """Names given as words, as files with one a line, or both; None stays None."""
    if values is None:
        return None
    names: list[str] = []
    for value in values:
        if Path(value).is_file() or value.endswith(".txt"):
            names += read_names(Path(value))
        else:
            names.append(value)
    return names


def predict(args: argparse.Namespace) -> None:
    names, more = given_names(args.names), given_names(args.add_names)
    classifier = Classifier.load(args.folder, device=args.device)
    if names is not None:
        classifier = classifier.with_names(names)
    if more is not None:
        classifier = classifier.with_names(more, add=True)
    predictions = classifier.predict(args.images, top_k=args.top_k)
    if args.json:
        rows = [
            {"image": str(path), "names": list(p.names), "probabilities": list(p.probabilities)}
            for path, p in zip(args.images, predictions, strict=True)
        ]
        print(json.dumps(rows, indent=1))
        write_json(args.out / "predictions.json", rows)
        return
    for path, p in zip(args.images, predictions, strict=True):
        chances = zip(p.names, p.probabilities, strict=True)
        print(f"{path}: " + ", ".join(f"{name} {100 * chance:.1f}%" for name, chance in chances))


def run_at(args: argparse.Namespace) -> Host:
    """The saved run, or with --alpha what WiSE-FT makes of it."""
    host = load_run(args.folder, device=args.device)
    return host if args.alpha is None else wise_ft(host, args.alpha)


def add_alpha(parser: argparse.ArgumentParser) -> None:
    """Declare --alpha, for commands that read a run with `run_at`."""
    parser.add_argument("--alpha", type=float, default=None, metavar="A",
                        help="tensors between where training began (0) and where it ended (1), as WiSE-FT does; "
                             "default: where it ended")  # fmt: skip


def export(args: argparse.Namespace) -> None:
    if args.no_tower and args.format != "head":
        raise ValueError(f"--no-tower is an option of --format head, not of {args.format}; leave it out")
    names = given_names(args.names)
    host = run_at(args)
    if args.format == "open-clip":
        folder = export_open_clip(host, args.out, names)
    elif args.format == "onnx":
        try:
            folder = export_onnx(host, args.out, names)
        except ImportError as error:  # an extra that is not installed is the caller's to fix: exit code 2
            raise ValueError(str(error)) from error
    else:
        folder = export_head(host, args.out, names, tower=not args.no_tower)
    if not args.quiet:
        for path in sorted(folder.iterdir()):
            print(f"{path.stat().st_size / 1e6:>8.1f} MB  {path}")
        if args.format == "open-clip":
            print(f"open it with open_clip.create_model_and_transforms('local-dir:{folder}')")


def words(args: argparse.Namespace) -> None:
    tokens = nearest_words(load_run(args.folder, device=args.device), args.k, metric=args.metric)
    if args.json:
        rows = [asdict(token) for token in tokens]
        print(json.dumps(rows, indent=1))
        write_json(args.out / "words.json", rows)
        return
    for token in tokens:
        of = f"{token.name}, " if token.name is not None else ""
        near = ", ".join(f"{w.text} ({getattr(w, args.metric):.3f})" for w in token.words)
        print(f"{of}token {token.index + 1} (length {token.norm:.3f}): {near}")


def add_commands(
    command: Callable[..., argparse.ArgumentParser], common: Callable[[argparse.ArgumentParser, str], Any]
) -> None:
    """Declare the commands of this file.

    Args:
        command: makes the parser of a command from its name, its function and what it is about.
        common: adds the options that every command takes, given its default for --out.
    """
    p = command("predict", predict, "name images with a saved run")
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a saved run")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    p.add_argument("--names", nargs="+", default=None, metavar="NAME",
                   help="choose among these, or those in a file, one a line; default: the run's own")  # fmt: skip
    p.add_argument("--add-names", nargs="+", default=None, metavar="NAME",
                   help="names to choose among besides, or a file with one a line (default: none)")  # fmt: skip
    p.add_argument("--top-k", type=positive, default=3, metavar="N", help="names shown for an image")
    p.add_argument("--json", action="store_true", help="print JSON and write predictions.json to --out")
    common(p, "runs/predict")

    p = command("export", export, "write a saved run for use without ogenlib")
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a saved run")
    p.add_argument("--format", choices=FORMATS, default="open-clip",
                   help="open-clip: a folder that open_clip opens, with the class weights beside the model; head: "
                        "class weights and image tower; onnx: pixels to logits (needs ogenlib[onnx])")  # fmt: skip
    p.add_argument("--names", nargs="+", default=None, metavar="NAME",
                   help="weights of these names, or those in a file, one a line; default: the run's own")  # fmt: skip
    p.add_argument("--no-tower", action="store_true", help="with head: leave the image tower out")
    add_alpha(p)
    common(p, "runs/export")

    p = command("words", words, "show the words nearest to a learned context")
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a saved run of a prompt learner")
    p.add_argument("--k", type=positive, default=5, metavar="N", help="words shown for a context token")
    p.add_argument("--metric", choices=METRICS, default="euclidean", help="distance that orders the words")
    p.add_argument("--json", action="store_true", help="print JSON with both distances and write words.json to --out")
    common(p, "runs/words")

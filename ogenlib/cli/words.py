"""``ogen words``: the words nearest to a learned context."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ogenlib.cli.command import Command, out_if_asked
from ogenlib.cli.options import add_run
from ogenlib.cli.printing import printed_or_written
from ogenlib.cli.terminal import printable, say
from ogenlib.cli.values import Given, positive

METRICS = ("euclidean", "cosine")


def options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, of="a saved run of a prompt learner")
    parser.add_argument(
        "--k", action=Given, type=positive, default=5, metavar="N", help="words shown for a context token"
    )
    parser.add_argument("--metric", choices=METRICS, default="euclidean", help="distance that orders the words")
    parser.add_argument(
        "--json", action="store_true", help="print JSON with both distances; with this or --out, words.json is written"
    )


def run(args: argparse.Namespace) -> None:
    from ogenlib.analysis.words import nearest_words
    from ogenlib.runs.saved import load_run

    host = load_run(args.folder, device=args.device, download=args.download)
    tokens = nearest_words(host, args.k, metric=args.metric)
    if printed_or_written(args, [asdict(token) for token in tokens], "words.json"):
        return
    for token in tokens:
        of = f"{printable(token.name)}, " if token.name is not None else ""
        near = ", ".join(f"{printable(w.text)} ({getattr(w, args.metric):.3f})" for w in token.words)
        say(f"{of}token {token.index + 1} (length {token.norm:.3f}): {near}")


COMMAND = Command("words", "show the words nearest to a learned context", options, run, out_if_asked)

"""``ogen methods``: what can be trained.

The list lies beside this file: asking the methods themselves would import them all, and torch with them.
``python -m benchmarks.docs.methods`` writes it again, and a test compares it with the methods.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from typing import TypedDict

from ogenlib.cli.command import Command
from ogenlib.cli.printing import printed_or_written
from ogenlib.cli.terminal import say
from ogenlib.cli.values import was_given

LIST = "methods.json"


class Listed(TypedDict):
    """One method; `parameters` are those that it trains on ogen-tiny for two names, `ogen` whether OGEN takes it."""

    name: str
    kind: str
    paper: str
    url: str
    year: int
    parameters: int
    ogen: bool


def listed() -> list[Listed]:
    """Every method, in the order of tables."""
    found: list[Listed] = json.loads(files("ogenlib.cli").joinpath(LIST).read_text(encoding="utf-8"))
    return found


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    methods = listed()
    if printed_or_written(args, [{**one} for one in methods], LIST):
        return
    for one in methods:
        say(f"{one['name']:<14} {one['kind']:<12} {one['parameters']:>8} parameters  {one['paper']} ({one['year']})")


COMMAND = Command(
    "methods", "list the methods", options, run, lambda args: args.out if was_given(args, "out") else None
)

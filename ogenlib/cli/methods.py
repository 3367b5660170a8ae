"""``ogen methods``: what can be trained.

The list lies beside this file: asking the methods themselves would import them all, and torch with them.
``python -m benchmarks.docs.methods`` writes it again, and a test compares it with the methods.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.resources import files
from typing import TYPE_CHECKING, TypedDict

from ogenlib.cli.command import Command
from ogenlib.cli.printing import printed_or_written
from ogenlib.cli.terminal import say
from ogenlib.cli.values import was_given

if TYPE_CHECKING:
    from ogenlib.towers import ClipLike

LIST, REGISTRY = "methods.json", "ogenlib.hosts.registry"


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
    """Every method, in the order of tables; of a program that has loaded or registered some, those that it has."""
    if REGISTRY in sys.modules:
        from ogenlib.hosts import METHODS
        from ogenlib.towers import load_backbone

        kept = {one["name"]: one for one in _kept()}
        if list(kept) != list(METHODS):
            clip = load_backbone("ogen-tiny")
            return [kept[name] if name in kept else listing(name, clip) for name in METHODS]
    return _kept()


def listing(name: str, clip: ClipLike) -> Listed:
    """What is said of a method; `clip` is ogen-tiny."""
    from ogenlib.hosts import METHODS, build

    info = METHODS[name].info
    return {
        "name": info.name,
        "kind": info.kind,
        "paper": info.paper,
        "url": info.url,
        "year": info.year,
        "parameters": sum(p.numel() for p in build(name, clip, ["cat", "dog"]).trainable().values()),
        "ogen": info.ogen,
    }


def _kept() -> list[Listed]:
    listed: list[Listed] = json.loads(files("ogenlib.cli").joinpath(LIST).read_text(encoding="utf-8"))
    return listed


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

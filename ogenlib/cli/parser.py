"""The parser of ``ogen``: its commands, and the options that all of them share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ogenlib.cli import bench, convert, data, detect, eval, export, extract, methods, predict, report, train, words
from ogenlib.cli.options import Help, add_common
from ogenlib.cli.terminal import printable

COMMANDS = tuple(
    module.COMMAND
    for module in (bench, train, eval, predict, export, words, detect, extract, data, methods, report, convert)
)


class Parser(argparse.ArgumentParser):
    """Errors in one line that names the command and where its help is."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


def build_parser() -> Parser:
    """The parser of ``ogen``; ``args.chosen`` is the `Command` and ``args.parser`` its own parser."""
    parser = Parser(prog="ogen", description="Fine-tune CLIP-like models without losing what they already know.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        about = command.about[0].upper() + command.about[1:] + "."
        own = subparsers.add_parser(command.name, help=command.about, description=about, formatter_class=Help)
        command.options(own)
        add_common(own, Path("runs") / command.name, seeds=command.seeds)
        own.set_defaults(chosen=command, parser=own)
    return parser

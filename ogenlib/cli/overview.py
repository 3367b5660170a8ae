"""The commands of ``ogen`` and what each is about: enough to show help and to refuse what is no command, at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ogenlib.cli.terminal import printable

ABOUT: Mapping[str, str] = MappingProxyType({
    "bench": "train methods on some names, test them on others, write a report",
    "train": "train one method on class names and save the run",
    "eval": "test a saved run on a dataset",
    "predict": "name images with a saved run",
    "export": "write a saved run for use without ogenlib",
    "words": "show the words nearest to a learned context",
    "detect": "tell images of a run's classes from images of none",
    "extract": "store image features of a dataset as a feature bank",
    "data": "list, check or show datasets",
    "methods": "list the methods",
    "report": "write report.html again from a results.json",
    "convert": "turn a foreign checkpoint into open_clip's folder format",
})  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Errors in one line that names the command and where its help is."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


def overview() -> tuple[Parser, dict[str, Parser]]:
    """The parser of ``ogen``, and those of its commands by name, without their options."""
    parser = Parser(prog="ogen", description="Fine-tune CLIP-like models without losing what they already know.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands = {
        name: subparsers.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for name, about in ABOUT.items()
    }
    return parser, commands

"""What commands print and write of what they found."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import Any

from ogenlib.cli.command import out_if_asked
from ogenlib.cli.terminal import say
from ogenlib.utils.documents import write_json


def note(args: argparse.Namespace, text: str) -> None:
    """`say` it unless --quiet."""
    if not args.quiet:
        say(text)


def printed_or_written(args: argparse.Namespace, entries: list[dict[str, Any]], name: str) -> bool:
    """Write what a command found to --out, if asked, and print it as JSON with --json; whether it was printed."""
    folder = out_if_asked(args)
    if folder is not None:
        write_json(folder / name, entries)
    if getattr(args, "json", False):
        print(json.dumps(entries, indent=1))
        return True
    return False


def command_line() -> str:
    """This process's command, as a shell takes it."""
    return shlex.join(["ogen", *sys.argv[1:]])

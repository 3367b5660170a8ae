"""What a command of ``ogen`` is: one module of this folder, with its options and what it does.

Modules are imported for every command line, so what is heavy (torch and all that imports it) is imported in `run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ogenlib.cli.values import was_given


def out_folder(args: argparse.Namespace) -> Path | None:
    """Where most commands write."""
    return args.out


def out_if_asked(args: argparse.Namespace) -> Path | None:
    """The folder of a command that prints: it writes what it prints only where --out was given, or --json."""
    return args.out if was_given(args, "out") or getattr(args, "json", False) else None


def beside_out(args: argparse.Namespace) -> Path | None:
    """Where a command writes that makes the folder --out itself, whole or not at all."""
    return args.out.parent


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: on the command line; it writes to ``runs/NAME`` unless told otherwise.
        about: what it does, in one line.
        options: declares its options.
        run: does it.
        writes: the folder it writes to, None for none, once the options are known.
        seeds: whether it has several seeds, which it declares itself.
    """

    name: str
    about: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    writes: Callable[[argparse.Namespace], Path | None] = out_folder
    seeds: bool = False

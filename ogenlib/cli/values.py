"""Values of the command line: numbers, words and paths, each refused where nothing sensible can be meant."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

LARGEST = 2**31 - 1  # of counts; tensors take no larger ones everywhere
SEEDS = 2**63  # seeds of torch's generators lie below it


class Given(argparse.Action):
    """Stores a value, and remembers in ``given`` that the option was there: a default tells nothing of that."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        if self.option_strings or values is not self.default:  # stored too for an argument that is not there
            namespace.given = {*getattr(namespace, "given", ()), self.dest}


def was_given(args: argparse.Namespace, option: str) -> bool:
    """Whether an option that is stored by `Given`, or a switch, was on the command line."""
    return option in getattr(args, "given", ()) or getattr(args, option, None) is True


def positive(text: str) -> int:
    """A whole number of 1 or more; ArgumentTypeError otherwise."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of 1 or more (and {LARGEST} at most)")
    return value


def shots(text: str) -> int:
    """A whole number of 1 or more, or 0 for ``all``; ArgumentTypeError otherwise."""
    if text == "all":
        return 0
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'all'") from None


def seed(text: str) -> int:
    """A whole number that fits into 64 bits with its sign; ArgumentTypeError otherwise."""
    try:
        value = int(text)
    except ValueError:
        value = SEEDS
    if not -SEEDS <= value < SEEDS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of 64 bits")
    return value


def number(text: str) -> float:
    """A finite number; ArgumentTypeError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number")
    return value


def alpha_of(text: str) -> float:
    """A place between two states, from 0 to 1; ArgumentTypeError otherwise."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"alpha={value}: must be from 0 (where training began) to 1 (where it ended)")
    return value


def word(text: str) -> str:
    """Any text but an empty one; ArgumentTypeError for that."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is empty: leave the option out, or give it a value")
    return text


def file_name(text: str) -> Path:
    """The path of a file or folder; ArgumentTypeError for an empty one, which would be the current folder."""
    return Path(word(text))


def flag(option: str) -> str:
    """How an option is written, of where it is stored: ``--batch-size`` of ``batch_size``."""
    return f"--{option.replace('_', '-')}"

"""Options that scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common.places import RESULTS
from ogenlib.train.config import PRECISIONS

SEEDS = (1, 2, 3)
Cell = TypeVar("Cell")


def parser_of(about: str | None, results: str | None = None) -> argparse.ArgumentParser:
    """A parser that says the first line of a module's docstring, with ``--out`` for a file of `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    if results is not None:
        parser.add_argument(
            "--out",
            type=Path,
            default=RESULTS / results,
            metavar="FILE",
            help=f"what is written (benchmarks/results/{results})",
        )
    return parser


def add_many(parser: argparse.ArgumentParser, flag: str, default: Sequence[Any], about: str, **more: Any) -> None:
    """Several values of a flag, of the type that its default has."""
    kind = type(default[0]) if default else str
    parser.add_argument(flag, type=kind, nargs="+", default=list(default), help=about, **more)


def add_names(
    parser: argparse.ArgumentParser, flag: str, known: Iterable[str], default: Sequence[str] | None, about: str
) -> None:
    """Some of the names that are known."""
    parser.add_argument(flag, nargs="+", choices=list(known), default=default, metavar="NAME", help=about)


def add_number(parser: argparse.ArgumentParser, flag: str, default: int, about: str) -> None:
    """A whole number."""
    parser.add_argument(flag, type=int, default=default, metavar="N", help=f"{about} ({default:,})")


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """``--seeds``."""
    add_many(parser, "--seeds", SEEDS, f"seeds ({' '.join(map(str, SEEDS))})", metavar="N")


def add_training(parser: argparse.ArgumentParser, epochs: int, precision: str) -> None:
    """``--epochs`` and ``--precision``."""
    add_number(parser, "--epochs", epochs, "passes over the training images")
    parser.add_argument("--precision", choices=list(PRECISIONS), default=precision, help=f"({precision})")


def add_work(parser: argparse.ArgumentParser, folder: str, *, parts: bool = True) -> None:
    """``--work``, where finished rows are kept, and ``--part``."""
    parser.add_argument("--work", type=Path, default=Path(folder), metavar="DIR", help=f"finished rows ({folder})")
    if parts:
        parser.add_argument(
            "--part",
            type=part_of,
            default=None,
            metavar="I/N",
            help="only every N-th run from the I-th, and no results file",
        )


def part_of(text: str) -> tuple[int, int]:
    """`"I/N"` as (I, N)."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: give I/N with I from 1 to N, such as 1/2")
    return int(parts[0]), int(parts[1])


def part(cells: Sequence[Cell], of: tuple[int, int] | None) -> Sequence[Cell]:
    """Every N-th cell from the I-th; all for None."""
    return cells if of is None else cells[of[0] - 1 :: of[1]]

"""Write the measured tables of README.md and docs/*.md from benchmarks/results/*.json.

    python -m benchmarks.docs.fill            # rewrite what is between <!-- begin: NAME --> and <!-- end: NAME -->
    python -m benchmarks.docs.fill --check    # write nothing; exit 1 and name the blocks that differ

A block whose results file is absent is left as it is and reported. A new table is one function and one row of
`BLOCKS` in its room's `tables.py`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bundle import tables as bundle_tables
from benchmarks.common.options import parser_of
from benchmarks.common.places import ROOT
from benchmarks.hosts import tables as hosts_tables
from benchmarks.ogen import tables as ogen_tables
from benchmarks.ood import tables as ood_tables
from benchmarks.robust import tables as robust_tables
from benchmarks.speed import tables as speed_tables

MARKED = re.compile(r"(<!-- begin: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end: (?P=name) -->)", re.DOTALL)
MARKER = re.compile(r"<!-- (?:begin|end): ([\w-]+) -->")

ROOMS = (bundle_tables, ogen_tables, hosts_tables, robust_tables, ood_tables, speed_tables)
Table = Callable[[dict[str, Any]], str]
BLOCKS: dict[str, tuple[str, Table]] = {name: block for room in ROOMS for name, block in room.BLOCKS.items()}


@dataclass
class Outcome:
    """Blocks by what was found, each as `file: block`."""

    current: list[str]
    stale: list[str]
    absent: list[str]


def documents(root: Path) -> list[Path]:
    """README.md, the model card and docs/*.md, where they exist."""
    single = (root / "README.md", root / "ogenlib" / "towers" / "ogen_tiny" / "README.md")
    return [path for path in (*single, *sorted((root / "docs").glob("*.md"))) if path.is_file()]


def fill(text: str, where: str, results: Path, outcome: Outcome) -> str:
    """`text` with its blocks rewritten; what was done is added to `outcome`.

    Raises:
        ValueError: an unknown block, markers that do not pair, or a results file that does not fit its table.
    """
    whole = [name for match in MARKED.finditer(text) for name in [match["name"]] * 2]
    marks = MARKER.findall(text)
    if marks != whole:
        raise ValueError(f"{where}: unpaired block markers {sorted({n for n in marks if marks.count(n) % 2})}")

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"{where}: unknown block {name!r}; known are {', '.join(BLOCKS)}")
        file, write = BLOCKS[name]
        path = results / file
        if not path.is_file():
            outcome.absent.append(f"{where}: {name} (no {path.name})")
            return match[0]
        try:
            body = write(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: does not fit block {name!r} of {where}: {error!r}") from error
        (outcome.current if body == match["body"] else outcome.stale).append(f"{where}: {name}")
        return match[1] + body + match[4]

    return MARKED.sub(block, text)


def fill_all(root: Path, *, write: bool) -> Outcome:
    """Fill the documents below `root`; with `write` False only find out what would change."""
    outcome = Outcome([], [], [])
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        filled = fill(text, path.relative_to(root).as_posix(), root / "benchmarks" / "results", outcome)
        if write and filled != text:
            path.write_text(filled, encoding="utf-8")
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a block is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    args = parser.parse_args(argv)
    try:
        outcome = fill_all(args.root, write=not args.check)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for line in outcome.absent:
        print(f"untouched  {line}")
    for line in outcome.stale:
        print(f"{'stale     ' if args.check else 'written   '} {line}")
    for line in outcome.current:
        print(f"current    {line}")
    return 1 if args.check and outcome.stale else 0


if __name__ == "__main__":
    sys.exit(main())

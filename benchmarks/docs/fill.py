"""Write the measured tables of README.md and docs/*.md from benchmarks/results/*.json.

    python -m benchmarks.docs.fill            # rewrite what is between <!-- begin: NAME --> and <!-- end: NAME -->
    python -m benchmarks.docs.fill --check    # write nothing; exit 1 and name the blocks that differ

A block whose results file is absent is left as it is and reported. A new table is one function and one row of
`BLOCKS`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.markdown import METHOD_NAMES, number, spread, table
from benchmarks.common.options import parser_of
from benchmarks.common.places import ROOT
from benchmarks.hosts import tables as hosts_tables
from benchmarks.ogen import tables as ogen_tables
from benchmarks.ood import tables as ood_tables
from benchmarks.robust import tables as robust_tables
from benchmarks.speed import tables as anchor_tables

MARKED = re.compile(r"(<!-- begin: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end: (?P=name) -->)", re.DOTALL)
MARKER = re.compile(r"<!-- (?:begin|end): ([\w-]+) -->")


def base_to_new(document: dict[str, Any]) -> str:
    """Summary rows tested on the icon set or folder that was trained on."""
    card = document["protocol"]
    home = card.get("home_domain") or next(iter(card.get("train_domains") or []), "")
    rows = [row for row in document["summary"] if row["domain"] == home]
    if not rows:
        raise ValueError(f"the results have no summary rows for domain {home!r}")
    columns = ("base", "new", "H", "joint_H")
    lines = [
        [METHOD_NAMES.get(row["host"], row["host"]) + (" + OGEN" if row["ogen"] else "")]
        + [spread(row[column]) for column in columns]
        for row in rows
    ]
    body = table(["method", "base", "new", "H", "joint H"], lines)
    backbone = card["backbone"]
    tested = f", trained and tested on {home}" if home else ""
    seeds = ", ".join(str(seed) for seed in card["seeds"])
    known = ""
    if any(row["ogen"] for row in rows):
        told = "knew" if card["new_names_known_in_training"] else "did not know"
        known = f" OGEN {told} the new names in training, never their images."
    return body + (
        f"\nAccuracy in percent, mean ± standard deviation over seeds {seeds}. {card['dataset']}{tested}; "
        f"{card['n_base']} base and {card['n_new']} new names; {card['shots']} shots, {card['epochs']} epochs; "
        f"{backbone['name']}, weights {backbone['weights_hash']}; selection: {card['selection']}.{known}\n"
    )


def ogen_tiny(document: dict[str, Any]) -> str:
    """Zero-shot accuracy of each icon set, sets never pretrained on first."""
    sets = sorted(document["sets"].items(), key=lambda pair: pair[1]["seen_in_pretraining"])
    lines = [
        [name, "yes" if row["seen_in_pretraining"] else "no", number(row["all"]), number(row["groups"])]
        for name, row in sets
    ]
    body = table(["icon set", "seen in pretraining", "all names", "mean of the groups"], lines)
    categories = document.get("categories")
    if categories:
        sides = [[domain, number(row["base"]), number(row["new"])] for domain, row in categories.items()]
        body += "\n" + table(["emoji-categories, icon set", "base names", "new names"], sides)
    return body + "\nZero-shot accuracy in percent.\n"


def speed(document: dict[str, Any]) -> str:
    """Seconds, peak memory and counted FLOPs of the textbook loop and ours."""

    def times(more: float | None, less: float | None) -> str:
        return "–" if more is None or not less else f"{more / less:.1f}×"

    def pair(a: float | None, b: float | None, digits: int = 0, unit: float = 1.0) -> str:
        return " / ".join("–" if v is None else f"{v / unit:,.{digits}f}" for v in (a, b))

    lines = []
    for row in document["rows"]:
        seconds = (row["textbook_seconds"], row["ours_seconds"])
        peaks = (row["textbook_peak_mib"], row["ours_peak_mib"])
        flops = (row["flops_textbook"], row["flops_ours"])
        over = number(row["over_floor"], 2, "×")
        lines.append(
            [row["case"], pair(*seconds, 3), times(*seconds), pair(*peaks), times(*peaks), pair(*flops, 1, 1e9), over]
        )
    header = ["case", "seconds", "faster", "peak MiB", "smaller", "GFLOP", "ours over its FLOP floor"]
    return table(header, lines) + "\nPairs are textbook / ours.\n"


def generators(document: dict[str, Any]) -> str:
    """One table for each dataset: every generator on unknown classes, beside real rows and the names themselves."""
    distances, shares = ("cosine_centred", "frechet", "mmd", "density", "coverage"), ("nearest_mean", "ridge")
    header = ["features", "spread", "centred cosine", "Fréchet", "MMD²", "density", "coverage", "pass, %"]
    header += ["nearest mean, %", "ridge, %"]
    parts = []
    for name, card in document["protocol"]["datasets"].items():
        lines = []
        for row in document["summary"]:
            if row["dataset"] == name:
                means = [number(row.get(key, [None])[0], 2 if key == "density" else 3) for key in distances]
                single = row["spread"] is None  # real rows and names: what varies with the seed is not a generator
                shown = [number(row[k][0]) if single else spread(row[k]) for k in shares if k in row]
                shown += ["–"] * (len(shares) - len(shown))
                passes = number(row.get("pass_rate", [None])[0])
                lines.append([row["variant"], row["spread"] or "–", *means, passes, *shown])
        zero = next(row for row in document["summary"] if row["dataset"] == name)["zero_shot"]
        counts = f"{card['n_known']} known and {card['n_unknown']} unknown classes, {card['n_real_rows']} real rows"
        parts.append(f"**{name}**: {counts}; zero-shot {number(zero[0])} %\n\n" + table(header, lines))
    seeds = ", ".join(str(seed) for seed in document["protocol"]["seeds"])
    return "\n".join(parts) + f"\nMeans over seeds {seeds}, ± standard deviation.\n"


BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "base-to-new": ("emoji-categories.json", base_to_new),
    "ogen-tiny": ("ogen-tiny.json", ogen_tiny),
    "speed": ("speed.json", speed),
    "speed-hosts": ("speed-hosts.json", speed),
    "generators": ("generators.json", generators),
    **ogen_tables.BLOCKS,
    **hosts_tables.BLOCKS,
    **robust_tables.BLOCKS,
    **ood_tables.BLOCKS,
    **anchor_tables.BLOCKS,
}


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

"""Write the list of `ogen methods` and docs/methods.md from the methods themselves.

python -m benchmarks.docs.methods            # rewrite both
python -m benchmarks.docs.methods --check    # write nothing; exit 1 if one of them is stale
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.markdown import table
from benchmarks.common.options import parser_of
from benchmarks.common.places import ROOT
from ogenlib.cli.methods import LIST, Listed, listing
from ogenlib.hosts import METHODS
from ogenlib.towers import load_backbone

PAGE = ROOT / "docs" / "methods.md"
METHODS_FILE = ROOT / "ogenlib" / "cli" / LIST
START = """# Methods

Written by `benchmarks/docs/methods.py`, as `ogen methods` lists them. Parameters: what is trained for two names on
`ogen-tiny`. A method is a file in `ogenlib/hosts/` that says what it reproduces of its paper and what is different.

"""


def page(rows: Sequence[Listed]) -> str:
    """The page of these rows."""
    lines = [
        [
            f"`{r['name']}`",
            r["kind"],
            f"[{r['paper']}]({r['url']})",
            str(r["year"]),
            f"{r['parameters']:,}",
            "yes" if r["ogen"] else "no",
        ]
        for r in rows
    ]
    return START + table(["name", "kind", "paper", "year", "parameters", "takes OGEN"], lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    args = parser.parse_args(argv)
    clip = load_backbone("ogen-tiny")
    found = [listing(name, clip) for name in METHODS]
    texts = {METHODS_FILE: json.dumps(found, indent=1) + "\n", args.page: page(found)}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path, text in texts.items():
        if path in stale and not args.check:
            path.write_text(text, encoding="utf-8")
        print(f"{'current' if path not in stale else 'stale' if args.check else 'written'}    {path}")
    return int(bool(stale) and args.check)


if __name__ == "__main__":
    sys.exit(main())

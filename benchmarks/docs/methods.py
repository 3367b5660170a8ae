"""Write docs/methods.md from what `ogen methods --json` says.

python -m benchmarks.docs.methods            # rewrite the page
python -m benchmarks.docs.methods --check    # write nothing; exit 1 if the page is stale
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.markdown import table
from benchmarks.common.options import parser_of
from benchmarks.common.places import ROOT
from ogenlib.cli.main import main as ogen

PAGE = ROOT / "docs" / "methods.md"
START = """# Methods

Written by `benchmarks/docs/methods.py` from `ogen methods --json`. Parameters: what is trained for two names on
`ogen-tiny`. A method is a file in `ogenlib/hosts/` that says what it reproduces of its paper and what is different.

"""


def page(rows: Sequence[dict[str, Any]]) -> str:
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
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = ogen(["methods", "--json"])
    if code:
        return code
    text = page(json.loads(said.getvalue()))
    stale = not args.page.is_file() or args.page.read_text(encoding="utf-8") != text
    if stale and not args.check:
        args.page.write_text(text, encoding="utf-8")
    print(f"{'stale' if stale and args.check else 'written' if stale else 'current'}    {args.page}")
    return int(stale and args.check)


if __name__ == "__main__":
    sys.exit(main())

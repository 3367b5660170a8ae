"""How long the command line takes to answer what needs no model, and `import ogenlib` beside `import torch`.

    python -m benchmarks.speed.startup                 # writes results/startup.json

Every case is a process of its own; cases take turns, so that whatever else the machine does meets all of them, and
the median counts. What must not be imported is a matter of tests: tests/test_lazy_imports.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.common.options import parser_of
from benchmarks.common.origin import origin
from benchmarks.common.places import ROOT
from ogenlib.utils.documents import write_json

SCHEMA = "ogenlib.startup/1"
TURNS = 7
# What is run, and the exit code that it has.
OGEN = [sys.executable, "-m", "ogenlib"]
CASES: dict[str, tuple[list[str], int]] = {
    "python -c pass": ([sys.executable, "-c", "pass"], 0),
    "ogen --help": ([*OGEN, "--help"], 0),
    "ogen methods": ([*OGEN, "methods"], 0),
    "ogen bench --help": ([*OGEN, "bench", "--help"], 0),
    "ogen bench --epoches 3": ([*OGEN, "bench", "--epoches", "3"], 2),  # no such option
    "ogen train --shots 0": ([*OGEN, "train", "--shots", "0"], 2),
    "import ogenlib": ([sys.executable, "-c", "import ogenlib"], 0),
    "import torch": ([sys.executable, "-c", "import torch"], 0),
    "import ogenlib, OGEN and CoOp": ([sys.executable, "-c", "import ogenlib as og; og.OGEN, og.hosts.CoOp"], 0),
}


def seconds(command: Sequence[str], code: int) -> float:
    """Of one process; RuntimeError if it ends with another exit code."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return took


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, "startup.json")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"of every case ({TURNS})")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    took: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(args.turns):
        for case, what in CASES.items():
            took[case].append(seconds(*what))
    rows = [{"case": case, "seconds": median(each), "most": max(each)} for case, each in took.items()]
    protocol = {"name": "startup", "turns": args.turns, **origin("speed.startup", began)}
    write_json(args.out, {"schema": SCHEMA, "protocol": protocol, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

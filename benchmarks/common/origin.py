"""Where the numbers of a results file come from."""

from __future__ import annotations

import shlex
import sys
import time
from typing import Any

import torch

from ogenlib.utils.provenance import git_revision, now, versions

# Where files lie says nothing about the numbers.
PLACES = {"--features": "DIR", "--work": "DIR", "--out": "FILE", "--rates": "FILE", "--results": "FILE"}


def command(module: str) -> str:
    """The command line of a module of the benchmarks (`ood.study`) without the folders of this machine."""
    # Called by another program, it is not told what that one was asked for.
    words = sys.argv[1:] if sys.argv[0].endswith(f"{module.replace('.', '/')}.py") else []
    shown = [PLACES.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return shlex.join(["python", "-m", f"benchmarks.{module}", *shown])


def origin(module: str, began: float | None = None) -> dict[str, Any]:
    """Versions, threads, revision, command and date; with `began`, a `time.perf_counter()`, the seconds since."""
    seconds = {} if began is None else {"seconds": time.perf_counter() - began}
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "git": git_revision(),
        "command": command(module),
        "date": now(),
        **seconds,
    }

"""The library's own benchmark, run by a script: ``ogen bench`` without its folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.common.origin import command
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.results.types import Results


def bench(config: BenchConfig, module: str, folder: Path | None = None) -> Results:
    """The results of `run_bench`, as those of a module of the benchmarks; its files are kept in `folder`, if any."""
    with tempfile.TemporaryDirectory() as scratch:
        return run_bench(config, folder or Path(scratch), command=command(module), progress=True)

"""Measurements in a process of their own, which does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.common.places import ROOT


def said_by(module: str, *options: str) -> Any:
    """The last line that a module of the benchmarks prints, as JSON.

    Raises:
        ValueError: it failed, with the last line of what it said.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(options)} of benchmarks.{module} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])

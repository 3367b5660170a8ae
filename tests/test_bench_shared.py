"""Several benchmarks with one output folder share the work, whoever of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ASK = ["bench", "--smoke", "--hosts", "coop", "taskres", "--no-ogen", "--epochs", "3", "--quiet", "--out"]


def started(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ogenlib", *ASK, str(out)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)


def numbers(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.rglob("*") if ".tmp" in path.name or path.name.endswith(".partial")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("alone")
    one = started(out)
    assert one.wait() == 0, one.stderr.read() if one.stderr else ""
    return numbers(out)


def test_two_at_once_give_the_results_of_one(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    both = [started(tmp_path) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert numbers(tmp_path) == alone and not leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [
        "coop-seed1.json",
        "taskres-seed1.json",
        "zero_shot-seed1.json",
    ]


def test_what_a_killed_one_was_at_is_done_by_another(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    first = started(tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / ".locks" / "coop-seed1").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = started(tmp_path)
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    said = second.communicate()[1]
    assert second.returncode == 0, said
    assert numbers(tmp_path) == alone and not leftovers(tmp_path)

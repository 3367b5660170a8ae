"""Several benchmarks with one output folder share the work, whoever of them is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Python, wait_for

pytestmark = pytest.mark.slow

ASK = ["bench", "--smoke", "--hosts", "coop", "taskres", "--no-ogen", "--epochs", "3", "--quiet", "--out"]


def started(out: Path) -> Python:
    return Python("-m", "ogenlib", *ASK, str(out))


def numbers(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.rglob("*") if ".tmp" in path.name or path.name.endswith(".partial")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("alone")
    one = started(out)
    assert one.wait() == 0, one.said()
    return numbers(out)


def test_two_at_once_give_the_results_of_one(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    both = [started(tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.said() for process in both]
    assert numbers(tmp_path) == alone and not leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [
        "coop-seed1.json",
        "taskres-seed1.json",
        "zero_shot-seed1.json",
    ]


def test_what_a_killed_one_was_at_is_done_by_another(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    first = started(tmp_path)
    wait_for((tmp_path / ".locks" / "coop-seed1").exists, first)
    second = started(tmp_path)
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, second.said()
    assert numbers(tmp_path) == alone and not leftovers(tmp_path)

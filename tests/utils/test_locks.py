"""One process at a time, across processes that wait, give way or are killed."""

from __future__ import annotations

import signal
import subprocess
import sys

from ogenlib.utils.locks import claim, hold

HOLDER = """
import sys, time
from ogenlib.utils.locks import hold
with hold(sys.argv[1]):
    print('held', flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_claim_gives_way_and_holding_waits(tmp_path):
    target = tmp_path / "folder" / "a.json"
    other = holder(target, 1.0)
    with claim(target) as mine:
        assert not mine
    with hold(target):
        assert other.wait(timeout=30) == 0  # it let go before this process got the lock
        with claim(target) as mine:  # a block inside a block of the same process does not wait for itself
            assert mine


def test_a_killed_process_frees_its_lock(tmp_path):
    other = holder(tmp_path / "a", 60)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with claim(tmp_path / "a") as mine:
        assert mine


def test_different_paths_do_not_wait_for_each_other(tmp_path):
    other = holder(tmp_path / "a", 60)
    with claim(tmp_path / "b") as mine:
        assert mine
    other.kill()
    other.wait()

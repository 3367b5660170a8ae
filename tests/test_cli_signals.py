"""Commands that are ended by signals: exit codes, one line, nothing half written, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from processes import PATIENCE, Python, wait_for

from ogenlib.cli import methods
from ogenlib.cli.main import main
from ogenlib.cli.signals import Ending, ending

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have other signals")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture(autouse=True)
def ordinary() -> Iterator[None]:
    """The handlers of a program in a terminal, even where the tests run under nohup."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in CODES}
    defaults()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``ogen`` in a Python that starts here, with the signals' default handlers."""
    command = [sys.executable, "-m", "ogenlib", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=defaults,
    )


def defaults() -> None:
    for name in CODES:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.mark.slow
def test_a_training_that_is_ended_leaves_whole_files_and_one_line(tmp_path: Path) -> None:
    for label, color in enumerate(("red", "blue")):
        (tmp_path / "images" / color).mkdir(parents=True)
        for row in range(3):
            Image.new("RGB", (64, 64 + 10 * label + row), color).save(tmp_path / "images" / color / f"{row}.png")
    running = {}
    for name in CODES:
        command = ["train", "--dataset", str(tmp_path / "images"), "--views", "1", "--epochs", "100000", "--quiet"]
        running[name] = Python("-m", "ogenlib", *command, "--out", str(tmp_path / name))
    for name, process in running.items():
        wait_for((tmp_path / name / "checkpoint.safetensors").exists, process)
        process.send_signal(getattr(signal, name))
    for name, process in running.items():
        code, out, err = process.wait(), process.out.read_text(), process.err.read_text()
        assert (code, out) == (CODES[name], "")
        assert err.startswith("ogen train: ") and err.count("\n") == 1 and "goes on" in err
        assert ("interrupted" in err) is (name == "SIGINT") and (name in err) is (name != "SIGINT")
        assert [p.name for p in (tmp_path / name).iterdir() if p.name.endswith((".tmp", ".tmp.safetensors"))] == []


SLOW_TO_IMPORT = """
import pathlib, time
pathlib.Path({ready!r}).touch()
try:
    time.sleep(600)
except BaseException as error:
    raise ImportError("an extension module says it in its own way") from error
"""


@pytest.mark.parametrize("name", CODES)
def test_a_signal_while_importing_is_one_line(name: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    (tmp_path / "torch.py").write_text(SLOW_TO_IMPORT.format(ready=str(ready)))
    places = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = start("train", PYTHONPATH=places)
    wait_for(ready.exists, process)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (CODES[name], "")
    assert err.startswith("ogen train: ") and err.count("\n") == 1, err


def ended_by(monkeypatch: pytest.MonkeyPatch, run: Callable[[object], None]) -> int:
    """The exit code of a command that does `run`."""
    monkeypatch.setattr(methods, "listed", lambda: run(None))
    return main(["methods"])


@pytest.mark.parametrize("name", CODES)
def test_handlers_are_put_back(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = {n: signal.getsignal(getattr(signal, n)) for n in CODES}
    assert ended_by(monkeypatch, lambda _: signal.raise_signal(getattr(signal, name))) == CODES[name]
    assert {n: signal.getsignal(getattr(signal, n)) for n in CODES} == before
    assert capsys.readouterr().err.count("\n") == 1


def test_a_second_signal_does_not_disturb_the_cleaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def run(_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    assert ended_by(monkeypatch, run) == CODES["SIGTERM"] and cleaned  # the first one counts
    assert capsys.readouterr().err.count("\n") == 1


def test_a_signal_that_was_swallowed_can_be_sent_again() -> None:
    handler = Ending()
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    handler(signal.SIGINT, None)
    handler.grace = 0.0
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGTERM, None)
    assert handler.code == CODES["SIGINT"]


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with ending() as found:
        signal.raise_signal(signal.SIGHUP)
    assert found.number is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_commands_run_in_other_threads(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["data", "list"])))
    thread.start()
    thread.join()
    assert codes == [0] and "emoji-categories" in capsys.readouterr().out


def test_a_forked_process_ends_as_it_would_have() -> None:
    with ending():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM

"""Python in processes of its own, without the seconds that importing torch and open_clip takes each of them.

A process is a copy of one that has imported the two and done nothing else: ogenlib and the code given start fresh.
Where the import or the very start of Python is what is tested, use `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["torch", "open_clip"])
PATIENCE = 300.0  # seconds
BESIDE = {"PYTHONPATH": str(Path(__file__).parent)}  # for programs that import from here


class Python:
    """`python *words`, started. What it says goes into files; it has one thread, and no group unless one is given.

    Args:
        words: `-c CODE`, `-m MODULE` or a file, and arguments.
        folder: where it runs; this process's folder if None.
        environment: what is different in its environment.

    Attributes:
        pid: its number.
        out, err: the files of what it says.
    """

    def __init__(self, *words: str, folder: Path | None = None, **environment: str) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.out, self.err = (Path(self._kept.name) / name for name in ("out", "err"))
        self.out.touch()
        self.err.touch()
        settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        arguments = (words, folder or Path.cwd(), settings, self.out, self.err)
        self._process = FRESH.Process(target=_run, args=arguments, daemon=True)  # it ends with the tests
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code. Whoever takes too long is killed."""
        self._process.join(PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def said(self) -> str:
        """Both streams."""
        return self.out.read_text() + self.err.read_text()


def python(*words: str, folder: Path | None = None, **environment: str) -> str:
    """What a process that must succeed writes to its output; arguments as for `Python`."""
    process = Python(*words, folder=folder, **environment)
    assert process.wait() == 0, process.said()
    return process.out.read_text()


def two_of(*words: str, **environment: str) -> list[str]:
    """What two processes say that are the group which torchrun would have announced to them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [Python(*words, **group, RANK=rank, LOCAL_RANK=rank, **environment) for rank in ("0", "1")]
    assert [process.wait() for process in both] == [0, 0], [process.said() for process in both]
    return [process.out.read_text() for process in both]


def wait_for(there: Callable[[], bool], process: Python, pause: float = 0.01) -> None:
    """Until something is there, which a process that lives brings about."""
    until = time.monotonic() + PATIENCE
    while not there():
        assert process.poll() is None, process.said()
        assert time.monotonic() < until
        time.sleep(pause)


def _run(words: tuple[str, ...], folder: Path, settings: Mapping[str, str], out: Path, err: Path) -> None:
    """Be `python *words`."""
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # also where the tests run under nohup
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.current_process()._config["daemon"] = False  # it may have children
    torch.set_num_threads(1)
    # Not what pytest put there: a program finds what is installed, and what PYTHONPATH names.
    installed = [p for p in sys.path if not Path(p).is_relative_to(ROOT) or Path(p).is_relative_to(sys.prefix)]
    first, *rest = words
    named = [p for p in settings.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [str(folder), *named, *installed]
    if first == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    else:
        sys.path[0] = str(Path(first).resolve().parent)
        sys.argv[:] = [first, *rest]
        runpy.run_path(first, run_name="__main__")

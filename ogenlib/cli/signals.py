"""Signals that end a command: SIGTERM and SIGHUP unwind it as Ctrl-C does, so that what it was writing is removed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last
GRACE = 3.0  # seconds


class Ending:
    """What ended a command, and the handler of the signals that may.

    Attributes:
        number: of the first signal that came, None while none has. Code that catches KeyboardInterrupt, or turns it
            into an error of its own as extension modules do while they are imported, does not hide it.
        grace: seconds in which another one does not disturb the cleaning that the first one started.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.grace = GRACE
        self._since = 0.0
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked process is not the command: it ends as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.number is not None and now - self._since < self.grace:
            return
        self.number, self._since = self.number or number, now
        raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """The exit code: 128 and the signal's number, as shells have it."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def reason(self) -> str:
        """What a message says of it."""
        if self.number in (None, signal.SIGINT):
            return "interrupted"
        return f"ended by {signal.Signals(self.number).name}"


@contextmanager
def ending() -> Iterator[Ending]:
    """Let the signals `NAMES` raise KeyboardInterrupt inside the block; then their handlers are what they were.

    A signal that is ignored stays so, as SIGHUP is under nohup. Outside the main thread nothing is changed.
    """
    end = Ending()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: one of C code, which could not be put back
                before[number] = handler
    try:
        for number in before:
            signal.signal(number, end)
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_silently() -> None:
    """From here on a signal that is not ignored ends the process without a word: Python is about to shut down."""
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

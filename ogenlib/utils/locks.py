"""One writer at a time: locks beside the files they guard, freed by the system when their process ends.

Built on https://github.com/tox-dev/filelock. A lock file, ``.name.lock``, stays behind; it holds nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)


def _lock(path: str | os.PathLike[str]) -> FileLock:
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # One object a path, so that a block inside another of the same thread does not wait for itself.
    return FileLock(target.parent / f".{target.name}.lock", is_singleton=True)


@contextmanager
def hold(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes from writing the file or folder `path` inside the block; waits while one does."""
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process writes %s; waiting until it is done", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claim(path: str | os.PathLike[str]) -> Iterator[bool]:
    """True if `path` is this process's to write inside the block, False if another one is at it; never waits."""
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()

"""One writer at a time: locks beside the files they guard, freed by the system when their process ends.

Built on https://github.com/tox-dev/filelock. Locks are empty files in a hidden folder, ``.locks``, which stays behind:
to delete a lock that another process may be waiting for would give it to two.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)
FOLDER = ".locks"


def _lock(path: str | os.PathLike[str]) -> FileLock:
    target = Path(os.path.realpath(path))
    folder = target.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # One object a path, so that a block inside another of the same thread does not wait for itself.
    return FileLock(folder / target.name, is_singleton=True)


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

"""Files and folders that are either whole or absent, with the permissions that the user's umask gives."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORGOTTEN = 24 * 3600.0  # seconds after which a temporary file of another machine has no writer any more


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there, whole, when the block ends without an error.

    The parent folder is created. The temporary name keeps the suffix, because writers such as Pillow choose
    their format by it. A block that raises leaves `path` as it was and removes the temporary file; a process
    that is killed can leave one behind (hidden, `.name-*.tmp.suffix`), never a half `path`, and the next
    writer of `path` removes it.

    Raises FileNotFoundError if the block wrote nothing, and whatever the block or the file system raises.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file that is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    start = f".{target.stem[:40]}-"
    _remove_forgotten(target.parent, start, f".tmp{target.suffix}")
    temporary = target.with_name(f"{start}{_writer()}-{secrets.token_hex(6)}.tmp{target.suffix}")
    mode = _mode_of_a_new_file(temporary)
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {target}: write to the path that atomic_write yields")
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors writes files that only their owner may read, whatever the umask
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """FileExistsError if `path` is a file or a folder with something in it."""
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} already exists: name a folder that does not")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it gets that name, whole, when the block ends without an error.

    A block that raises leaves nothing; a process that is killed can leave the hidden folder `.name-*.tmp` behind,
    and the next writer of `path` removes it.

    Raises FileExistsError if `path` is a file or a folder with something in it, and whatever the block raises.
    """
    target = Path(path)
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    start = f".{target.name[:40]}-"
    _remove_forgotten(target.parent, start, ".tmp")
    work = target.parent / f"{start}{_writer()}-{secrets.token_hex(6)}.tmp"
    mode = _mode_of_a_new_file(work)
    work.mkdir()
    try:
        yield work
        for written in work.rglob("*"):
            if written.is_file():
                written.chmod(mode)
        os.replace(work, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)  # nothing is there once it has its name


class DamagedFile(ValueError):
    """A file whose contents are not what its writer wrote. The message names it and says what to do."""


def check_file(path: str | os.PathLike[str], what: str, fix: str, most: int | None = None) -> None:
    """Refuse what is no ordinary file, before it is opened: a pipe would be waited for.

    Args:
        what, fix: of messages: what the file should be, and what the reader can do.
        most: bytes; None for any number.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: a folder, a pipe or a device, or more bytes.
    """
    file = Path(path)
    if not file.is_file():
        if file.exists():
            raise DamagedFile(f"{path} is no file, and should be {what}; {fix}")
        raise FileNotFoundError(f"{path}: there is no such file, which should be {what}; {fix}")
    size = file.stat().st_size
    if most is not None and size > most:
        raise DamagedFile(f"{path} has {size} bytes, and {what} has {most} at most; {fix}")


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make `folder` and a file in it, so that a long computation is not the first to learn that it cannot be written.

    Raises:
        ValueError: it cannot be written, with what the file system says.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _mode_of_a_new_file(target / f".writable-{_writer()}-{secrets.token_hex(6)}.tmp")
    except OSError as error:
        raise ValueError(f"{target} cannot be written ({error.strerror or error}); name another folder") from error


def _mode_of_a_new_file(path: Path) -> int:
    """Permissions of an ordinary file that is made here: what the umask, or the folder's default list, says.

    Reading the umask itself would mean setting it, for every thread of the process.
    """
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        os.unlink(path)


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _writer() -> str:
    """Machine and process, so that others can tell whether the writer of a temporary file is still there."""
    return f"{_machine()}-{os.getpid()}"


def _remove_forgotten(folder: Path, start: str, end: str) -> None:
    """Delete temporary files of one target whose writer was killed."""
    named = re.compile(re.escape(start) + r"(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{12}" + re.escape(end))
    for entry in os.scandir(folder):
        match = named.fullmatch(entry.name)
        if match is None:
            continue
        try:
            gone = match[1] == _machine() and not _runs(int(match[2]))
            if gone or time.time() - entry.stat(follow_symlinks=False).st_mtime > FORGOTTEN:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
        except FileNotFoundError:
            continue  # another process cleans up too


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # no way to ask that does not stop it; age decides
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

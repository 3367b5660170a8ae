"""Files and folders that are either whole or absent."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there, whole, when the block ends without an error.

    The parent folder is created. The temporary name keeps the suffix, because writers such as Pillow choose
    their format by it. A block that raises leaves `path` as it was and removes the temporary file; a process
    that is killed can leave a temporary file behind (hidden, `.name-*.tmp.suffix`), never a half `path`.

    Raises FileNotFoundError if the block wrote nothing, and whatever the block or the file system raises.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at the file that is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:40]}-{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {target}: write to the path that atomic_write yields")
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
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

    A block that raises leaves nothing; a process that is killed can leave the hidden folder `.name.*` behind.

    Raises FileExistsError if `path` is a file or a folder with something in it, and whatever the block raises.
    """
    target = Path(path)
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)  # temporary folders are private
        os.replace(work, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)  # nothing is there once it has its name


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON-able value, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

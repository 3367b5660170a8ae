"""The file of a faiss index: faiss's own format, with a digest after it, and a look at it before faiss reads it.

faiss ignores what stands after an index. Its reader is C++ that was not made for files of strangers: a digest tells
damage, not an attacker, so open indexes that you made.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from ogenlib.utils.documents import UNSEALED, DamagedFile
from ogenlib.utils.files import atomic_write

_log = logging.getLogger(__name__)
KINDS = {b"IxFI": "flat", b"IwSq": "ivf", b"IwPQ": "ivf-pq"}  # by the first bytes
MARK = b"ogenlib.faiss/1:"
TAIL = len(MARK) + 64
CHUNK = 8 * 2**20  # bytes read at a time
FIX = "build it again with FaissIndex.build(pool).save(path)"


def write_index(faiss: Any, index: Any, path: str | os.PathLike[str]) -> None:
    """Write an index and its digest, whole or not at all."""
    with atomic_write(path) as temporary:
        faiss.write_index(index, str(temporary))
        digest = _digest(temporary, temporary.stat().st_size)
        with open(temporary, "ab") as file:
            file.write(MARK + digest.encode())


def read_index(faiss: Any, path: str | os.PathLike[str]) -> tuple[Any, str]:
    """An index that `write_index` wrote, and its kind.

    Raises FileNotFoundError; ValueError for what is no such index, is damaged, or keeps its lists in another file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such index; make it with FaissIndex.build(pool).save(path)")
    kind = _check(file)
    try:
        index = faiss.read_index(str(file), faiss.IO_FLAG_READ_ONLY)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error) or "too large").splitlines()[0]
        raise DamagedFile(f"{path}: is no faiss index ({reason}); {FIX}") from error
    if kind != "flat" and type(faiss.downcast_InvertedLists(index.invlists)).__name__ != "ArrayInvertedLists":
        raise DamagedFile(f"{path}: is a faiss index whose lists are in another file; {FIX}")
    return index, kind


def _check(path: Path) -> str:
    """The kind of an index whose contents are those of its digest."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        kind = KINDS.get(file.read(4))
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
    if kind is None:
        raise DamagedFile(f"{path}: is no faiss index of the kinds {', '.join(KINDS.values())}; {FIX}")
    if not tail.startswith(MARK):
        _log.warning(UNSEALED, path)
    elif tail[len(MARK) :] != _digest(path, size - TAIL).encode():
        raise DamagedFile(f"{path} was changed after it was written: its digest does not fit its contents; {FIX}")
    return kind


def _digest(path: Path, size: int) -> str:
    """SHA-256 in hex of the first `size` bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()

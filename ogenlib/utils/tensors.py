"""Tensors in safetensors files that carry a digest of their contents, checked when they are opened.

The digest stands in the file's own metadata under ``"sha256"``: over the other metadata, and name, type, shape and
bytes of every tensor. It tells damage, not an attacker, who can compute it too.

Notation: none; nothing here knows what the tensors are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ogenlib.utils.documents import DIGEST, UNSEALED, parse
from ogenlib.utils.files import DamagedFile, atomic_write, check_file

_log = logging.getLogger(__name__)
EMPTY = "0" * 64  # where the digest goes
CHUNK = 8 * 2**20  # bytes that are read at a time; every element size divides it
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_EXPONENTS = {
    torch.float64: (torch.int64, 0x7FF << 52), torch.float32: (torch.int32, 0xFF << 23),
    torch.float16: (torch.int16, 0x1F << 10), torch.bfloat16: (torch.int16, 0xFF << 7),
}  # fmt: skip


@dataclass(frozen=True)
class TensorFile:
    """An opened file.

    tensors: by name, mapped from the file and read when they are used.
    metadata: the header's texts, without the digest.
    digest: of the contents; None for a file that was written without one.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    digest: str | None

    def header(self, key: str, what: str, fix: str) -> Any:
        """The JSON value that stands in the metadata under `key`, None if nothing does."""
        text = self.metadata.get(key)
        return None if text is None else parse(text, self.path, what, fix)


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors with metadata and their digest, whole or not at all; returns the digest.

    Tensors may share memory and be on any device; each is copied to the CPU if it has to be.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(_apart(whole), temporary, metadata={**(metadata or {}), DIGEST: EMPTY})
        return seal(temporary)


def open_tensors(
    path: str | os.PathLike[str], *, what: str, fix: str, needs: Sequence[str] = (), note: bool = True
) -> TensorFile:
    """Open a safetensors file, after a look at all of it: its digest, if it has one, and that numbers are finite.

    The file is read once, a few megabytes at a time, whatever its size.

    Args:
        what, fix: of messages: what the file should be, and what the reader can do.
        needs: names of tensors that must be there.
        note: log a warning for a file without a digest.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: no safetensors file, contents that do not fit the digest, numbers that are not finite, or a
            tensor that is missing.
    """
    check_file(path, what, fix)
    file = Path(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise DamagedFile(f"{path} cannot be read as {what} ({error}); {fix}") from error
    recorded = metadata.pop(DIGEST, None)
    digest, unfinished = _look(file)
    if recorded is not None and recorded != digest:
        raise DamagedFile(f"{path} was changed after it was written: its digest does not fit its contents; {fix}")
    if unfinished is not None:
        raise DamagedFile(f"{path}: the tensor {unfinished!r} holds numbers that are not finite; {fix}")
    missing = [name for name in needs if name not in tensors]
    if missing:
        raise DamagedFile(f"{path} cannot be read as {what}: it lacks the tensors {', '.join(missing)}; {fix}")
    if recorded is None and note:
        _log.warning(UNSEALED, path)
    return TensorFile(file, tensors, metadata, recorded)


def recorded_digest(path: str | os.PathLike[str]) -> str | None:
    """What a safetensors file says of itself, unchecked; None where it says nothing or is none."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get(DIGEST)
    except (SafetensorError, OSError, RuntimeError, ValueError):
        return None


def seal(path: str | os.PathLike[str]) -> str:
    """Put the digest of a safetensors file in the place that its metadata keep for it; returns the digest.

    For a file that was written with ``{"sha256": EMPTY}`` among its metadata, which are put in order too: safetensors
    writes them in any, so equal contents would make different files.
    """
    digest, _ = _look(Path(path))
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.get("__metadata__", {})
        if metadata.get(DIGEST) != EMPTY:
            raise ValueError(f"{path}: its metadata keep no place for a digest; write it with {DIGEST}=EMPTY")
        header["__metadata__"] = dict(sorted({**metadata, DIGEST: digest}.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: its header has no room for the digest; write it with write_tensors")
        file.seek(8)
        file.write(text.ljust(length))
    return digest


def _look(path: Path) -> tuple[str, str | None]:
    """The digest of a readable file's contents, and the first tensor with a number that is not finite."""
    unfinished: str | None = None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        metadata = {k: v for k, v in header.pop("__metadata__", {}).items() if k != DIGEST}
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for name in sorted(header):
            kind, shape, (start, end) = header[name]["dtype"], header[name]["shape"], header[name]["data_offsets"]
            bytes_of = hashlib.sha256()
            for chunk in _chunks(file, 8 + length + start, end - start):
                bytes_of.update(chunk)
                if unfinished is None and kind in _FLOATS and not _finite(chunk, _FLOATS[kind]):
                    unfinished = name
            digest.update(json.dumps([name, kind, shape, bytes_of.hexdigest()]).encode())
    return digest.hexdigest(), unfinished


def _chunks(file: BinaryIO, start: int, size: int) -> Iterator[bytearray]:
    file.seek(start)
    while size > 0:
        chunk = bytearray(file.read(min(CHUNK, size)))
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def _finite(chunk: bytearray, dtype: torch.dtype) -> bool:
    """Whether no number has all bits of its exponent set, as infinities and NaN have."""
    integer, exponent = _EXPONENTS[dtype]
    bits = torch.frombuffer(chunk, dtype=integer)
    return not bool(((bits & exponent) == exponent).any())


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with memory of its own, which safetensors asks for."""
    seen: set[int] = set()
    copies = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr() if tensor.numel() else 0
        shared = place in seen or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
        copies[name] = tensor.clone() if shared and tensor.numel() else tensor
        seen.add(copies[name].untyped_storage().data_ptr())
    return copies

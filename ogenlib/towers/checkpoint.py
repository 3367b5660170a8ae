"""State dicts in torch's archives, TorchScript or `torch.save`: tensors by name, and nothing of the archive runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ogenlib.towers.archive import Archive, Unreadable, open_archive
from ogenlib.towers.program import MAX_BYTES, Stored, Thing, read_program
from ogenlib.utils.files import DamagedFile

MAX_TENSORS = 100_000
MAX_DEPTH, MAX_NAME = 64, 1000  # of modules inside each other; letters of a tensor's name
SHARING = 4  # how often a byte of the file may be part of a tensor: tied weights


def read_state_dict(path: Path, fix: str) -> dict[str, Tensor]:
    """The tensors of an archive, on the CPU. Those that share memory in the archive share it here.

    A module of TorchScript gives every tensor that it and the modules in it have, be it a parameter or not.

    Args:
        fix: of messages: what the reader can do.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: no torch archive, one that cannot be understood without running it, a record that does not fit
            its checksum, or no state dict.
    """
    with _opened(path, fix) as (archive, state):
        memory: dict[str, bytearray] = {}
        tensors = {}
        for name, stored in state.items():
            if stored.storage.key not in memory:
                record = f"data/{stored.storage.key}"
                memory[stored.storage.key] = archive.read(record, archive.length(record))
            tensors[name] = _view(memory[stored.storage.key], stored)
        return tensors


def check_state_dict(path: Path, fix: str) -> bool:
    """Raise what `read_state_dict` would, in little memory; True for TorchScript."""
    with _opened(path, fix) as (archive, _):
        archive.verify()
        return archive.is_script


@contextmanager
def _opened(path: Path, fix: str) -> Iterator[tuple[Archive, dict[str, Stored]]]:
    """An archive and what it says of its tensors."""
    try:
        with open_archive(path) as archive:
            order = bytes(archive.read("byteorder", 16)) if "byteorder" in archive else b"little"
            if order.strip() != b"little":
                raise Unreadable("its numbers were written on a machine with another order of bytes")
            if "data.pkl" not in archive:
                raise Unreadable("it has no record 'data.pkl'")
            state = _state(read_program(bytes(archive.read("data.pkl", MAX_BYTES))))
            _check_records(archive, state)
            yield archive, state
    except Unreadable as error:
        kinds = "neither a TorchScript archive nor a torch state dict"
        raise DamagedFile(f"{path} is {kinds} ({error}); {fix}") from error


def _state(document: Any) -> dict[str, Stored]:
    """Tensors by name, of a module or of a dictionary, which may be below ``"state_dict"`` of another."""
    if isinstance(document, Thing):
        return _of_module(document)
    if isinstance(document, dict) and isinstance(document.get("state_dict"), dict):
        document = document["state_dict"]
    if not isinstance(document, dict) or not document or not all(isinstance(v, Stored) for v in document.values()):
        raise Unreadable("it does not hold a state dict: names and tensors")
    if len(document) > MAX_TENSORS or any(not isinstance(k, str) or len(k) > MAX_NAME for k in document):
        raise Unreadable("the names in its state dict are no names of tensors")
    return document


def _of_module(module: Thing) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    pending, seen = [("", 0, module)], 0
    while pending:
        start, depth, current = pending.pop()
        for name, value in (current.state if isinstance(current.state, dict) else {}).items():
            whole = f"{start}{name}"
            seen += 1
            if seen > MAX_TENSORS or depth > MAX_DEPTH or len(whole) > MAX_NAME:
                raise Unreadable("its modules are nested without end")
            if isinstance(value, Stored):
                tensors[whole] = value
            elif isinstance(value, Thing):
                pending.append((f"{whole}.", depth + 1, value))
    if not tensors:
        raise Unreadable(f"its {module.path[:80]!r} has no tensors")
    return tensors


def _check_records(archive: Archive, state: dict[str, Stored]) -> None:
    total = 0
    for name, stored in state.items():
        storage = stored.storage
        if archive.length(f"data/{storage.key}") != storage.count * storage.dtype.itemsize:
            raise Unreadable(f"the record of {name!r} has another size than the tensor")
        total += prod(stored.shape) * storage.dtype.itemsize
    if total > SHARING * archive.size:
        raise Unreadable(f"its tensors have {total} bytes, the file has {archive.size}")


def _view(memory: bytearray, stored: Stored) -> Tensor:
    dtype = stored.storage.dtype
    if not prod(stored.shape):
        return torch.empty(stored.shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype).as_strided(stored.shape, stored.stride, stored.offset)

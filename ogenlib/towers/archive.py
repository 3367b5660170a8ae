"""The records of a torch archive, read as bytes after a look at how its zip file is laid out.

torch writes its records one after another below one folder, uncompressed but for the code of TorchScript, which is
never read here. An archive that is laid out otherwise is refused, so that nothing is read that the file does not hold:
no record is inflated, none lies in another, and a reader that looks names up in another way finds no other records.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_DIRECTORY = 16 * 2**20  # bytes of the list of records, which is read at once: some 200,000 of them
CHUNK = 8 * 2**20
_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_CODE = "code/"
_LOCAL_HEADER = 30  # bytes before a record's name
_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError, struct.error)


class Unreadable(ValueError):
    """Why a file is no torch archive; says nothing of the file's name."""


class Archive:
    """An open archive; records go by their names without the folder that all of them are in."""

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        self._file, self.size = file, size
        self._records = _records(file, size)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    @property
    def is_script(self) -> bool:
        """TorchScript: code lies next to the tensors."""
        return "constants.pkl" in self or any(name.startswith(_CODE) for name in self._records)

    def length(self, name: str) -> int:
        """Bytes of a record; raises Unreadable where there is none."""
        if name not in self._records:
            raise Unreadable(f"it has no record {name[:80]!r}")
        return self._records[name].file_size

    def read(self, name: str, most: int) -> bytearray:
        """A record whole, compared with its checksum; raises Unreadable where it has more than `most` bytes."""
        if self.length(name) > most:
            raise Unreadable(f"its record {name[:80]!r} has {self.length(name)} bytes, {most} at most are read")
        whole = bytearray()
        for chunk in self._chunks(name):
            whole += chunk
        return whole

    def verify(self) -> None:
        """Compare every record but code with its checksum; raises Unreadable."""
        for name in self._records:
            if name.startswith(_CODE):
                continue
            for _ in self._chunks(name):
                pass

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self._file.open(self._records[name]) as record:
                while chunk := record.read(CHUNK):
                    yield chunk
        except _ERRORS as error:
            raise Unreadable(f"its record {name[:80]!r} is damaged: {error}") from error


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive inside the block.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is no zip file as torch writes them.
    """
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        start = handle.read(4)
        if start[:1] == b"\x80":
            raise Unreadable(
                "it is a pickle as torch wrote before 1.6, which cannot be read without running it; save it anew where "
                "you trust it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            )
        if start != b"PK\x03\x04":
            raise Unreadable("it is no zip file" if size else "it is empty")
        handle.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
        _check_end(handle.read(), size)
        try:
            file = zipfile.ZipFile(handle)
        except _ERRORS as error:
            raise Unreadable(f"its zip file is damaged: {error}") from error
        with file:
            yield Archive(file, size)


def _check_end(tail: bytes, size: int) -> None:
    """The list of records ends where the file ends, and is of a size that can be read."""
    at = len(tail) - _END.size
    if at < 0:
        raise Unreadable("its zip file is cut off")
    mark, *_, length, offset, comment = _END.unpack_from(tail, at)
    if mark != b"PK\x05\x06" or comment:
        raise Unreadable("its zip file is cut off, or goes on after its end")
    ends = size - _END.size
    locator = at - _LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        ends -= _LOCATOR.size + _END64.size
        record = locator - _END64.size
        if record < 0 or _LOCATOR.unpack_from(tail, locator)[2] != ends:
            raise Unreadable("its zip file has two ends")
        mark, *_, length, offset = _END64.unpack_from(tail, record)
        if mark != b"PK\x06\x06":
            raise Unreadable("its zip file has no end")
    if length > MAX_DIRECTORY:
        raise Unreadable(f"its list of records has {length} bytes, {MAX_DIRECTORY} at most are read")
    if offset + length != ends:
        raise Unreadable("its list of records does not end where the file ends")


def _records(file: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Records by name; raises Unreadable for a layout that torch does not write."""
    records: dict[str, zipfile.ZipInfo] = {}
    folders, names, free = set(), set(), 0
    for entry in sorted(file.infolist(), key=lambda entry: entry.header_offset):
        shown = repr(entry.filename[:80])
        folder, _, name = entry.filename.partition("/")
        if not folder or not name or ".." in name.split("/") or "\\" in name:
            raise Unreadable(f"its record {shown} is not in the archive's folder")
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        if not stored and not name.startswith(_CODE):
            raise Unreadable(f"its record {shown} is compressed, which torch does not do")
        if entry.flag_bits & 1:
            raise Unreadable(f"its record {shown} is encrypted")
        if entry.header_offset < free:
            raise Unreadable(f"its record {shown} lies inside another")
        free = entry.header_offset + _LOCAL_HEADER + entry.compress_size
        if free > size:
            raise Unreadable(f"its record {shown} is longer than the file")
        if entry.filename.lower() in names:  # torch finds names whatever their case
            raise Unreadable(f"its record {shown} is there twice")
        names.add(entry.filename.lower())
        folders.add(folder)
        records[name] = entry
    if len(folders) != 1:
        raise Unreadable(f"its records are in {len(folders)} folders, not in one")
    return records

"""Many strings in one run of bytes, decoded when they are asked for: a hundred million cost no Python objects.

Notation: `N` strings.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

import torch
from torch import Tensor

CHECKED = 2**20  # ends, or bytes, that are looked at together


class Strings(Sequence[str]):
    """N strings.

    Args:
        data: UTF-8 bytes of all, one after the other, uint8.
        ends: `(N,)` int64, where each of them ends in `data`.
    """

    def __init__(self, data: Tensor, ends: Tensor) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """The same strings, packed."""
        encoded = [text.encode() for text in texts]
        joined = bytearray(b"".join(encoded))
        # torch refuses an empty buffer
        data = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.empty(0, dtype=torch.uint8)
        return cls(data, torch.tensor(list(accumulate(map(len, encoded))), dtype=torch.long))

    def check(self) -> Strings:
        """The same; ValueError for ends that are not those of `data`, or bytes that are no UTF-8. Reads all of it."""
        data, ends = self.data, self.ends
        kinds = (data.dtype, data.ndim, ends.dtype, ends.ndim)
        if kinds != (torch.uint8, 1, torch.int64, 1):
            raise ValueError(f"strings and their ends are {kinds}, not bytes and int64 in one dimension each")
        last, decoder = 0, codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(ends), CHECKED):
            some = ends[start : start + CHECKED]
            if int(some.min()) < last or int(some.max()) > len(data) or bool((some.diff() < 0).any()):
                raise ValueError(f"the ends of {len(ends)} strings do not rise from 0 to {len(data)}")
            inside = some[some < len(data)]
            if bool(((data[inside] & 0xC0) == 0x80).any()):  # a byte that goes on with a character
                raise ValueError("a string ends inside a character")
            last = int(some[-1])
        if last != len(data):
            raise ValueError(f"{len(ends)} strings end at {last} of {len(data)} bytes")
        for piece in data.split(CHECKED):
            decoder.decode(piece.numpy().tobytes())
        decoder.decode(b"", final=True)
        return self

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        start = int(self.ends[place - 1]) if place else 0
        return self.data[start : int(self.ends[place])].numpy().tobytes().decode()

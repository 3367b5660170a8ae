"""Many strings in one run of bytes, decoded when they are asked for: a hundred million cost no Python objects.

Notation: `N` strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

import torch
from torch import Tensor


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

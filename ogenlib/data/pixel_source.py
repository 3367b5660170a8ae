"""Where the pixels of a bank come from: bytes in memory, or files decoded at every use. Both give the same numbers.

Notation: `N` images, `V` views, `B` images of a batch, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from ogenlib.data.dataset import ImageSet, read_failure

CHUNK = 64  # images that are decoded before the first of them is taken away


class PixelSource(Protocol):
    """Pixels by image and view."""

    @property
    def views(self) -> int: ...

    def read(self, indices: Tensor, views: Tensor, device: torch.device) -> Tensor:
        """(B, 3, H, W) float32, normalised, of images `indices` (B,) in views `views` (B,), both on the CPU."""
        ...


class Decoder:
    """Decodes files at every use.

    make_view: an image, its key and a view's number to pixels (3, H, W).
    workers: threads that decode; 0 decodes in the caller's. They change no number.
    """

    def __init__(
        self, images: ImageSet, make_view: Callable[[Image.Image, str, int], Tensor], views: int, workers: int = 0
    ) -> None:
        self.images, self.views, self.workers = images, views, workers
        self._make_view = make_view

    def read(self, indices: Tensor, views: Tensor, device: torch.device) -> Tensor:
        """See `PixelSource`. Raises FileNotFoundError or ValueError naming an image that cannot be read."""
        pairs = zip(indices.tolist(), views.tolist(), strict=True)
        # neighbours of one image are opened once: what encodes all views asks for them together
        jobs = [(index, [view for _, view in group]) for index, group in groupby(pairs, key=lambda pair: pair[0])]
        decoded = [self._decode(job) for job in jobs] if not self.workers else list(self._threads(self._decode, jobs))
        return torch.cat(decoded).to(device)

    def every(self, skip_bad: bool, pixels: bool) -> Iterator[tuple[int, Tensor | dict[str, str]]]:
        """All images in order: (index, its views (V, 3, H, W)), or what was wrong with it as `{"file", "reason"}`.

        pixels: whether the views are wanted; without, images are only opened and an empty tensor stands for them.
        Raises what `read` raises unless `skip_bad`.
        """

        def attempt(index: int) -> Tensor | Exception:
            try:
                if pixels:
                    return self._decode((index, range(self.views)))
                self.images.open(index)
                return torch.empty(0)
            except (FileNotFoundError, ValueError) as error:
                return error

        for start in range(0, len(self.images), CHUNK):
            indices = range(start, min(start + CHUNK, len(self.images)))
            outcomes = self._threads(attempt, indices) if self.workers else map(attempt, indices)
            for index, outcome in zip(indices, outcomes, strict=True):
                if not isinstance(outcome, Exception):
                    yield index, outcome
                elif skip_bad:
                    yield index, {"file": self.images[index].file, "reason": read_failure(outcome)}
                else:
                    raise outcome

    def _decode(self, job: tuple[int, Sequence[int]]) -> Tensor:
        row, views = job
        image = self.images.open(row)
        return torch.stack([self._make_view(image, self.images[row].key, view) for view in views])

    def _threads(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(work, jobs))


class Stored:
    """Views as bytes, with what preprocessing makes of each byte.

    Preprocessing ends with a scaling and a normalisation of 8-bit pixels, so a channel has at most 256 values; they
    are remembered as they were seen, so that what comes out equals what went in to the last bit.

    size: (H, W).
    cfg: the backbone's `preprocess_cfg`.
    """

    def __init__(self, count: int, views: int, size: tuple[int, int], cfg: Mapping[str, Any]) -> None:
        self.views = views
        self.bytes = torch.empty(count, views, 3, *size, dtype=torch.uint8)
        self.values = torch.full((3, 256), torch.nan)
        self._mean, self._std = (torch.tensor(list(cfg[key])).view(3, 1, 1) for key in ("mean", "std"))

    def put(self, row: int, pixels: Tensor) -> None:
        """Keep the views (V, 3, H, W) of one image.

        Raises ValueError for pixels that are not a function of 8 bits.
        """
        levels = ((pixels * self._std + self._mean) * 255).round().clamp(0, 255).to(torch.uint8)
        by_channel, seen = levels.transpose(0, 1).flatten(1).long(), pixels.transpose(0, 1).flatten(1)
        values = self.values.scatter(1, by_channel, seen)
        values = torch.where(self.values.isnan(), values, self.values)
        if not torch.equal(values.gather(1, by_channel), seen):
            raise ValueError(
                "this preprocessing does not end in 8-bit pixels, so bytes cannot hold them; "
                "decode at every use: PixelBank.load(clip, images, cache='none')"
            )
        self.values = values
        self.bytes[row] = levels

    def read(self, indices: Tensor, views: Tensor, device: torch.device) -> Tensor:
        """See `PixelSource`."""
        levels = self.bytes[indices, views].to(device)  # bytes travel, floats are made on the other side
        channel = torch.arange(3, device=device).view(3, 1, 1)
        return self.values.to(device)[channel, levels.long()]

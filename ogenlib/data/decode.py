"""Files to pictures: which formats are read, how large they may be, and what is opened at all.

Pillow tries every format it knows, whatever a file is called, and gives PostScript to Ghostscript. Only formats that
it decodes itself are tried here.

Notation: (H, W) pixels.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # JPEG: with MPO, several in one file


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A file, for reading; a pipe would be waited for and a device read without end.

    Raises FileNotFoundError, ValueError for what is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{os.fspath(path)} is no regular file")
    return open(path, "rb")


@contextmanager
def decoded(source: str | os.PathLike[str] | bytes, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The first picture of a file, or of a file's bytes, decoded.

    Raises:
        FileNotFoundError, OSError: the file cannot be opened.
        ValueError: no regular file, another format, damaged, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89
            million as Pillow sets it): such a file of a few kilobytes can fill the memory.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
        Image.init()  # an older Pillow has no AVIF
        try:
            picture = Image.open(file, formats=[name for name in formats if name in Image.OPEN])
        except UnidentifiedImageError as error:
            raise ValueError(f"it is damaged, or no picture in one of the formats {', '.join(formats)}") from error
        with picture:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and picture.width * picture.height > limit:
                raise ValueError(
                    f"it has {picture.width} x {picture.height} pixels, and {limit} are read at most: make it smaller, "
                    f"or raise PIL.Image.MAX_IMAGE_PIXELS"
                )
            try:
                picture.load()
            except (RuntimeError, TypeError, MemoryError) as error:  # from libraries below Pillow
                raise ValueError(f"it is damaged: {error}") from error
            yield picture

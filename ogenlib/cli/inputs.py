"""What the command line is told to read and write: names, images, runs and the folder of ``--out``, checked first.

A command that trains for hours must not be the first to learn that a file is not there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ogenlib.utils.files import check_writable

if TYPE_CHECKING:  # both bring torch
    from ogenlib.data import Dataset, ImageSet
    from ogenlib.hosts import Host

MAX_BYTES = 64 * 2**20  # of a file of class names: a million names of 60 letters


def read_names(path: Path) -> list[str]:
    """Class names, one a line in UTF-8, without blank lines and outer spaces.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no ordinary file, larger than `MAX_BYTES`, no UTF-8, no names, or a name twice.
    """
    check_file(path, "class names, one a line")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for class names, one a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must hold class names, one a line, in UTF-8, and is no UTF-8 ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise ValueError(
            f"{path} must hold class names, one a line, each once; "
            + (f"it repeats {twice[:3]}" if twice else "it is empty")
        )
    return names


def given_names(values: Sequence[str] | None) -> list[str] | None:
    """Names given as words, as files with one a line, or both; None stays None.

    A value is a file if one of that name is there, or if it ends in ``.txt``.

    Raises:
        FileNotFoundError, ValueError: as `read_names`, and a name that is given twice.
    """
    if values is None:
        return None
    names: list[str] = []
    for value in values:
        is_file = os.path.exists(value) and not os.path.isdir(value)
        names += read_names(Path(value)) if is_file or value.endswith(".txt") else [value]
    from ogenlib.data.dataset import check_classnames

    return list(check_classnames(names))


def images_of(data: Dataset, split: str) -> ImageSet:
    """The images of a split; ValueError if there are none."""
    images = data.splits().get(split)
    if not images:
        raise ValueError(f"dataset {data.name} has no {split} images; choose another --split")
    return images


def run_at(folder: Path, alpha: float | None, *, device: str, download: bool) -> Host:
    """A saved run, or with an `alpha` what WiSE-FT makes of it."""
    from ogenlib.merge.wise import wise_ft
    from ogenlib.runs.saved import load_run

    host = load_run(folder, device=device, download=download)
    return host if alpha is None else wise_ft(host, alpha)


def check_images(paths: Sequence[Path]) -> None:
    """FileNotFoundError or ValueError for the first path that is no ordinary file; nothing is opened."""
    for path in paths:
        check_file(path, "an image")


def check_file(path: Path, what: str) -> None:
    """FileNotFoundError where there is nothing, ValueError for a folder, a pipe or a device; `what` it should be."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: there is no such file, which should be {what}")
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise ValueError(f"{path} is {kind}, and should be a file with {what}")


@contextmanager
def writable(folder: Path | None) -> Iterator[None]:
    """Refuse a folder that cannot be written before the block does its work (None: the block writes nothing).

    Folders that are made for this are removed if the block fails before anything is in them.

    Raises:
        ValueError: it cannot be written, with what the file system says.
    """
    if folder is None:
        yield
        return
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        check_writable(folder)
        yield
    except BaseException:
        with suppress(OSError):  # the first that holds something ends it
            for path in created:
                path.rmdir()
        raise

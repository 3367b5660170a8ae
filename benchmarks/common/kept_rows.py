"""Rows of a study that are kept in a folder, so that an interrupted one goes on and several processes can share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.common.results_file import read_results
from ogenlib.data.dataset import short_hash
from ogenlib.utils.documents import write_json


def kept_rows(
    cells: Iterable[tuple[Any, ...]],
    work: Path,
    decides: Callable[..., Sequence[Any]],
    make: Callable[..., dict[str, Any]],
    *,
    prefix: str = "",
    about: str = "study",
) -> list[Any]:
    """The row of every cell: that of a file in `work` whose name is made of everything that `decides` it.

    It is made first if the file is not there, and read in both cases, so that a fresh row equals one that is found
    again. `decides` and `make` are called with what a cell holds.
    """
    rows = []
    for cell in tqdm(list(cells), desc=about, unit="run"):
        path = work / f"{prefix}{short_hash(list(decides(*cell)))}.json"
        if not path.exists():
            work.mkdir(parents=True, exist_ok=True)
            write_json(path, make(*cell))
        rows.append(read_results(path))
    return rows

"""Rows of a study that are kept in a folder, so that an interrupted one goes on and several processes can share it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ogenlib.data.dataset import short_hash
from ogenlib.utils.documents import write_json


def kept_row(
    work: Path, decides: Sequence[Any], make: Callable[[], dict[str, Any]], prefix: str = ""
) -> dict[str, Any]:
    """The row of a file in `work` whose name is made of everything that `decides` it; made first if it is not there.

    The file is read in both cases, so that a fresh row equals one that is found again.
    """
    path = work / f"{prefix}{short_hash(list(decides))}.json"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row

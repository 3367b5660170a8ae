"""Results files: written with where their numbers come from, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.origin import origin
from ogenlib.utils.documents import read_json, write_json


def write_results(
    path: Path, schema: str, module: str, card: Mapping[str, Any], *, began: float | None = None, **parts: Any
) -> dict[str, Any]:
    """Write the document of a module of the benchmarks (`ood.study`) and return it.

    Args:
        card: what decides the numbers; `origin` is added to it.
        began: as `origin` takes it.
        parts: rows, summary and the like.
    """
    document = {"schema": schema, "protocol": {**card, **origin(module, began)}, **parts}
    write_json(path, document)
    return document


def read_results(path: Path) -> dict[str, Any]:
    """A document of the benchmarks, or a row that one keeps.

    Raises:
        FileNotFoundError, DamagedFile: as `ogenlib.utils.documents.read_json`.
    """
    document: dict[str, Any] = read_json(
        path, dict[str, Any], what="results of the benchmarks", fix="run the script that writes it again"
    )
    return document

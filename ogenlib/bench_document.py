"""From finished cells to the document ``ogenlib.results/1`` of a benchmark.

A *cell* is one host, with OGEN or without, trained and tested with one seed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ogenlib import results
from ogenlib.data import ImageSet

THUMBNAILS = 4  # pictures beside a confusion


def cell_name(host: str, ogen: bool) -> str:
    """`coop` or `coop+ogen`: how files, tests and the protocol card name it."""
    return f"{host}+ogen" if ogen else host


def document(
    cells: Sequence[dict[str, Any]], card: Mapping[str, Any], seeds: Sequence[int], home: str,
    skipped: list[dict[str, str]], command: str, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """The whole document but the thumbnails.

    Args:
        card: what decides the numbers; what comes of the run is added here.
        home: the domain of curves, tests, confusions and classes.
    """
    rows = [row for cell in cells for row in cell["rows"]]
    first = [cell for cell in cells if cell["seed"] == seeds[0]]
    tag = {"dataset": card["dataset"], "domain": home}
    return {
        "schema": results.SCHEMA,
        "protocol": {
            **card, "new_names_known_in_training": any(c["new_names_known_in_training"] for c in cells),
            "home_domain": home, "seeds": list(seeds),
            "hosts": {cell_name(c["host"], c["ogen"]): {**c["config"], "train": _without_seed(c["train"])}
                      for c in cells},
            "skipped": skipped, "versions": results.versions(), "threads": torch.get_num_threads(),
            "command": command, "git": results.git_revision(), "date": results.now(), "seconds": seconds,
        },
        "rows": rows,
        "summary": results.summarize(rows),
        "curves": [{**tag, **_who(c), "seed": c["seed"], **c["curve"]} for c in cells if c["curve"]],
        "tests": results.paired_tests(rows, home),
        "confusions": [{**_who(c), "domain": home, "seed": c["seed"], **pair}
                       for c in first for pair in c["confusions"]],
        "per_class": _per_class(cells, home),
        "projection": [{**_who(c), "domain": home, **c["projection"]} for c in first if c["projection"]],
    }  # fmt: skip


def _without_seed(train: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in train.items() if k != "seed"}


def _who(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {"host": cell["host"], "ogen": cell["ogen"]}


def _per_class(cells: Sequence[dict[str, Any]], home: str) -> list[dict[str, Any]]:
    merged: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for cell in cells:
        for name, row in cell["per_class"].items():
            merged.setdefault((cell["host"], cell["ogen"], name), []).append(row)
    return [
        {"host": host, "ogen": ogen, "domain": home, "class": name, "side": group[0]["side"], "n": group[0]["n"],
         "accuracy": results.mean_std([g["accuracy"] for g in group]),
         "joint_accuracy": results.mean_std([g["joint_accuracy"] for g in group])}
        for (host, ogen, name), group in merged.items()
    ]  # fmt: skip


def add_thumbnails(pairs: list[dict[str, Any]], images: ImageSet) -> None:
    """Small pictures in place of the image keys of confusions."""
    index = {key: i for i, key in enumerate(images.keys)}
    for pair in pairs:
        keys = pair.pop("keys")
        pair["thumbnails"] = [_data_uri(images, index[key]) for key in keys[:THUMBNAILS]]


def _data_uri(images: ImageSet, i: int) -> str:
    picture = images.open(i)
    picture.thumbnail((64, 64))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

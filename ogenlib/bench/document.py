"""From finished cells to the document ``ogenlib.results/1`` of a benchmark.

A *cell* is one host, with OGEN or without or as a control, trained and tested with one seed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from typing_extensions import NotRequired, TypedDict

from ogenlib.bench.protocols import PROTOCOLS, Part, Plan
from ogenlib.data import ImageSet
from ogenlib.results import tables as results
from ogenlib.results.robustness import robustness_tables
from ogenlib.results.types import Confusion, Results, Robustness, Row
from ogenlib.utils.documents import conform, read_json, unsealed
from ogenlib.utils.provenance import git_revision, now, versions
from ogenlib.utils.variant import Variant

THUMBNAILS = 4  # pictures beside a confusion


class Cell(TypedDict):
    """One finished cell, as its file holds it.

    signature: of all that decides it. rows: of the results, and of the control that zero-shot makes of it. stacking:
    curves of both. config, train: settings of method and training.
    curve: columns over the epochs. confusions, per_class, projection, robustness, detection: see `Outcome`.
    """

    signature: str
    host: str
    ogen: bool
    control: NotRequired[str]
    seed: int
    shots: NotRequired[int]
    config: dict[str, Any]
    train: dict[str, Any]
    new_names_known_in_training: bool
    rows: list[dict[str, Any]]
    curve: dict[str, list[Any]]
    confusions: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    projection: dict[str, Any] | None
    robustness: NotRequired[dict[str, Any]]
    detection: NotRequired[dict[str, Any]]
    stacking: NotRequired[list[dict[str, Any]]]


def read_cell(path: Path, signature: str) -> Cell | None:
    """The finished cell in a file; None where there is no file, or one of other settings.

    Raises:
        DamagedFile: no cell, or one that was changed after it was written.
    """
    what, fix = "a finished cell", "delete it, and the same command runs the cell again"
    if not path.exists():
        return None
    content = read_json(path, dict[str, Any], what=what, fix=fix)
    if content.get("signature") != signature:
        return None
    content = unsealed(content, path, what=what, fix=fix, required=True)
    cell: Cell = conform(content, Cell, path, what, fix)
    return cell


def without_controls(cell: Cell) -> Cell:
    """The cell without what zero-shot makes of it."""
    own = cell.get("control")
    kept: Cell = {**cell, "rows": [row for row in cell["rows"] if row.get("control") == own]}
    if "stacking" in cell:
        kept["stacking"] = [curve for curve in cell["stacking"] if curve.get("control") == own]
    return kept


def document(
    cells: Sequence[Cell],
    card: Mapping[str, Any],
    plan: Plan,
    seeds: Sequence[int],
    skipped: list[dict[str, str]],
    command: str,
    seconds: float,
) -> Results:
    """The whole document but the thumbnails.

    Args:
        card: what decides the numbers; what comes of the run is added here.
    """
    home = plan.home
    rows = cast(list[Row], [row for cell in cells for row in cell["rows"]])
    means = _means(rows, plan.average)
    most = max(plan.shots)
    shown = [cell for cell in cells if cell["seed"] == seeds[0] and cell.get("shots", most) == most]
    tag = {"dataset": card["dataset"], "domain": home}
    whole = {
        "schema": results.SCHEMA,
        "protocol": {
            **card,
            "new_names_known_in_training": any(c["new_names_known_in_training"] for c in cells),
            "home_domain": home,
            "seeds": list(seeds),
            "hosts": {
                Variant.of(c).name: {**_counted_texts(c["config"]), "train": _without_seed(c["train"])} for c in cells
            },
            **ending(skipped, command, seconds),
        },
        "rows": rows,
        "summary": results.summarize([*means, *rows]),
        "curves": [{**tag, **_who(c), "seed": c["seed"], **c["curve"]} for c in cells if c["curve"]],
        "tests": results.paired_tests(rows, home)
        if plan.tests == "home"
        else results.all_tests([*means, *[row for row in rows if row.get("task") not in results.MEAN_TASKS]]),
        "confusions": [{**_who(c), "seed": c["seed"], **pair} for c in shown for pair in c["confusions"]],
        "per_class": _per_class(cells, home),
        "projection": [{**_who(c), "domain": home, **c["projection"]} for c in shown if c["projection"]],
        **_published(card, rows),
        **_robustness(cells),
        **_detection(shown),
        **_stacking(cells, most),
    }
    return cast(Results, whole)


def _means(rows: Sequence[Row], over: str) -> list[Row]:
    """Mean rows: over sides that have new images, or over those tasks that there are several of."""
    if over != "tasks":
        return results.average_rows([row for row in rows if row["new"] is not None], over)
    return [
        mean
        for task in results.MEAN_TASKS
        for mean in results.average_rows([row for row in rows if row.get("task") == task], "all")
    ]


def _detection(shown: Sequence[Cell]) -> dict[str, Any]:
    """Histograms and curves of the first seed."""
    entries = [{**_who(c), "seed": c["seed"], **c["detection"]} for c in shown if "detection" in c]
    return {"detection": entries} if entries else {}


def _stacking(cells: Sequence[Cell], most: int) -> dict[str, Any]:
    """Curves of every seed."""
    here = [cell for cell in cells if cell.get("shots", most) == most]
    curves = [{**_who(c), "seed": c["seed"], **curve} for c in here for curve in c.get("stacking", ())]
    return {"stacking": curves} if curves else {}


def _robustness(cells: Sequence[Cell]) -> Mapping[str, Any]:
    entries = [{**_who(c), "seed": c["seed"], **c["robustness"]} for c in cells if "robustness" in c]
    return robustness_tables(cast(list[Robustness], entries)) if entries else {}


def _published(card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Published rows beside those of one dataset; where a protocol has suites they stand beside these."""
    protocol = PROTOCOLS[card["name"]]
    if protocol.shown.published is None or not protocol.no_suite:
        return {}
    published = protocol.shown.published(card["dataset"], [row["dataset"] for row in rows])
    return {"published": published} if published else {}


def ending(skipped: list[dict[str, str]], command: str, seconds: float) -> dict[str, Any]:
    """What a protocol card says of the run itself."""
    return {
        "skipped": skipped,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "command": command,
        "git": git_revision(),
        "date": now(),
        "seconds": seconds,
    }


def _without_seed(train: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in train.items() if k != "seed"}


def _counted_texts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the number of training texts in place of them all."""
    texts = config.get("texts")
    return {**config, "texts": sum(map(len, texts.values()))} if isinstance(texts, Mapping) else dict(config)


def _who(cell: Cell) -> dict[str, Any]:
    fields: Mapping[str, Any] = cell
    return {key: fields[key] for key in ("host", "ogen", "control", "shots") if key in fields}


def _per_class(cells: Sequence[Cell], home: str) -> list[dict[str, Any]]:
    merged: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        for row in cell["per_class"]:
            key = (Variant.of(cell), cell.get("shots"), row.get("dataset"), row["side"], row["class"])
            merged.setdefault(key, []).append({**_who(cell), **row})
    return [
        {
            **group[0],
            "domain": home,
            "accuracy": results.mean_std([g["accuracy"] for g in group]),
            "joint_accuracy": results.mean_std([g["joint_accuracy"] for g in group]),
        }
        for group in merged.values()
    ]


def add_thumbnails(pairs: list[Confusion], parts: Sequence[Part]) -> None:
    """Small pictures in place of the image keys of confusions."""
    shown = {(pair["dataset"], key) for pair in pairs for key in pair["keys"][:THUMBNAILS]}
    pictures = {
        (part.dataset, key): (part.images, i)
        for part in parts
        for i, key in enumerate(part.images.keys)
        if (part.dataset, key) in shown
    }
    for pair in pairs:
        keys = pair.pop("keys")
        pair["thumbnails"] = [_data_uri(*pictures[pair["dataset"], key]) for key in keys[:THUMBNAILS]]


def _data_uri(images: ImageSet, i: int) -> str:
    picture = images.open(i)
    picture.thumbnail((64, 64))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

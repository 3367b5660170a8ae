"""Reading ``results.json``: what a report takes for granted of a document ``ogenlib.results/1``, as types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from ogenlib.results.tables import METRICS
from ogenlib.utils.documents import conform, read_document

WHAT = "results of a benchmark (ogenlib.results/1)"
FIX = "name a results.json that ogen bench wrote"
Number = float | None
Pair = list[Number] | Number  # mean and standard deviation


class Of(TypedDict):
    """Which method something is of."""

    host: str
    ogen: bool


class Place(Of):
    dataset: str
    domain: str


class Row(Place):
    """One run in one setting; its metrics are checked besides."""

    seed: int


class Summary(Place, total=False):
    n_seeds: int
    shots: int
    task: str
    detector: str


class Curve(Of, total=False):
    dataset: str
    domain: str
    shots: int
    epoch: list[int]
    base: list[Number]
    new: list[Number]


class Confusion(Of, total=False):
    dataset: str
    domain: str
    seed: int
    count: Number
    of: Number
    thumbnails: list[str]


class ClassRow(Of, total=False):
    dataset: str
    domain: str
    side: str
    accuracy: Pair
    joint_accuracy: Pair


class Point(TypedDict, total=False):
    alpha: Number
    id: Number
    ood: Number
    zero_shot: Number


class Robustness(Of, total=False):
    curve: list[Point] | None
    why_no_curve: str | None


class RobustnessSummary(Of, total=False):
    point: str
    alpha: Pair
    id: Pair
    ood: Pair
    zero_shot: Pair
    effective_robustness: Pair


class Picture(TypedDict):
    """Score histograms and ROC curves of one detector, by group of images."""

    edges: list[float]
    counts: dict[str, list[int]]
    roc: dict[str, list[float]]


class Detection(Of, total=False):
    detectors: dict[str, Picture]
    missing: dict[str, str]


class FeaturePoint(TypedDict, total=False):
    kind: str


class Features(Of, total=False):
    classes: list[str]
    points: list[FeaturePoint]


class Protocol(TypedDict, total=False):
    """What the report reads of the protocol card, which holds more."""

    name: str
    dataset: str
    home_domain: str
    train_domains: list[str]
    seeds: list[int]
    shots_list: list[int]
    detectors: dict[str, str]
    skipped: list[Any]


class Document(TypedDict):
    schema: Literal["ogenlib.results/1"]
    protocol: Protocol
    rows: list[Row]
    summary: list[Summary]


class Results(Document, total=False):
    curves: list[Curve]
    tests: list[dict[str, Any]]
    confusions: list[Confusion]
    per_class: list[ClassRow]
    projection: list[Features]
    published: list[dict[str, Any]]
    robustness: list[Robustness]
    robustness_summary: list[RobustnessSummary]
    detection: list[Detection]


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The whole document of a ``results.json``.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: no JSON, changed after it was written, or a part of it is missing or of another type.
    """
    document = read_document(path, dict[str, Any], what=WHAT, fix=FIX)
    conform(document, Results, path, WHAT, FIX)
    conform(_metrics(document, "rows"), dict[str, list[dict[str, Number]]], path, WHAT, FIX)
    conform(_metrics(document, "summary"), dict[str, list[dict[str, Pair]]], path, WHAT, FIX)
    return document


def _metrics(document: Mapping[str, Any], part: str) -> dict[str, list[dict[str, Any]]]:
    """What was measured, without what it was measured of."""
    return {part: [{key: row[key] for key in (*METRICS, "seconds") if key in row} for row in document[part]]}

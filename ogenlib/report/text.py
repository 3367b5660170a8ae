"""A benchmark's summary as aligned text for the terminal: one block for each setting, published numbers beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from ogenlib.bench.protocols.registry import shown_as
from ogenlib.evaluate.recall import short_name
from ogenlib.report.format import DASH, MINUS, mean_of, plus_minus
from ogenlib.results.tables import AVERAGE
from ogenlib.results.types import (
    RETRIEVAL_METRICS,
    DetectionMetric,
    Mean,
    Of,
    PointMeasure,
    PublishedRow,
    Results,
    RobustnessSummary,
    Summary,
    SummaryMetric,
)
from ogenlib.utils.variant import Variant, words_of

COLUMNS: dict[SummaryMetric, str] = {
    "base": "base",
    "new": "new",
    "H": "H",
    "H_of_means": "H of means",
    "joint_H": "joint H",
    "joint_H_calibrated": "calibrated",
    "ausuc": "AUSUC",
}
OPTIONAL = ("joint_H_calibrated", "ausuc")  # columns that not every document has
ROBUST: dict[PointMeasure, str] = {
    "id": "ID",
    "ood": "mean OOD",
    "zero_shot": "zero-shot",
    "effective_robustness": "effective",
}
# Task, metric and heading of what is said of a detector.
DETECTION: tuple[tuple[str, DetectionMetric, str], ...] = (
    ("near", "auroc", "near AUROC"), ("near", "fpr95_ood_positive", "near FPR95"), ("far", "auroc", "far AUROC"),
    ("full-spectrum", "auroc", "full AUROC"), ("shift", "flagged", "shift flagged"),
)  # fmt: skip
WIDTH, NAME, WIDE = 12, 22, 34


def summary_text(document: Results) -> str:
    """Tables of the home domain: one of all methods, or one for each dataset and domain that is tested."""
    card = document["protocol"]
    if card.get("shots_list"):
        return few_shot_text(document["summary"], card["home_domain"])
    return LISTED[shown_as(card["name"]).listing](document)


def halves_text(document: Results) -> str:
    """All methods in one table; of a suite in one for each dataset."""
    card = document["protocol"]
    if card.get("suite"):
        return datasets_text(document)
    here = [row for row in document["summary"] if row["domain"] == card["home_domain"]]
    return table(here, [column for column in COLUMNS if column != "H_of_means"])


def datasets_text(document: Results) -> str:
    """A table for each dataset, all in the home domain."""
    home = document["protocol"]["home_domain"]
    return settings_text({**document, "summary": [row for row in document["summary"] if row["domain"] == home]})


def settings_text(document: Results) -> str:
    """A table for each dataset and domain, the average last, with what is published and how robust methods are."""
    summary = document["summary"]
    settings = list(dict.fromkeys((row["dataset"], row["domain"]) for row in summary))
    blocks = []
    for dataset, domain in sorted(settings, key=lambda setting: setting[0] == AVERAGE):
        here = [row for row in summary if (row["dataset"], row["domain"]) == (dataset, domain)]
        heading = " / ".join(part for part in (dataset, domain) if part)
        blocks.append(f"{heading}\n{table(here)}{published_text(document.get('published') or [], dataset)}")
    if document.get("robustness_summary"):
        blocks.append(robustness_text(document["robustness_summary"]))
    return "\n\n".join(blocks)


def robustness_text(summary: Sequence[RobustnessSummary]) -> str:
    """ID, means over shifts and other datasets, and effective robustness of every method and of WiSE-FT on it."""
    named = {"trained": "", "half": " WiSE 0.5", "chosen": " WiSE chosen"}
    lines = [(_name(row) + named[row["point"]], [_cell(row[key]) for key in ROBUST]) for row in summary]
    return _aligned("robustness", ROBUST.values(), lines, WIDE)


def table(summary: Sequence[Summary], columns: Sequence[SummaryMetric] = tuple(COLUMNS)) -> str:
    """Methods down, metrics across."""
    shown = [c for c in columns if c not in OPTIONAL or any(mean_of(row.get(c)) is not None for row in summary)]
    lines = [(_name(row), [_cell(row.get(c)) for c in shown]) for row in summary]
    return _aligned("method", [COLUMNS[c] for c in shown], lines)


def few_shot_text(summary: Sequence[Summary], home: str) -> str:
    """Methods down, numbers of shots across; a suite has a block for each dataset, the average last."""
    blocks = []
    datasets = list(dict.fromkeys(row["dataset"] for row in summary))
    for dataset in sorted(datasets, key=lambda name: name == AVERAGE):
        here = [row for row in summary if (row["dataset"], row["domain"]) == (dataset, home)]
        shots = sorted({row["shots"] for row in here})
        lines = []
        for name in dict.fromkeys(_name(row) for row in here):
            by_shots = {row["shots"]: _cell(row["base"]) for row in here if _name(row) == name}
            lines.append((name, [by_shots.get(n, "-") for n in shots]))
        blocks.append((f"{dataset}\n" if len(datasets) > 1 else "") + _aligned("accuracy by shots", shots, lines))
    return "\n\n".join(blocks)


def retrieval_text(summary: Sequence[Summary]) -> str:
    """A block of recalls for each domain, the mean over several last."""
    columns = {metric: short_name(metric) for metric in RETRIEVAL_METRICS}
    width = max(len(name) for name in columns.values()) + 2
    blocks = []
    settings = list(dict.fromkeys((row["dataset"], row["domain"]) for row in summary))
    for dataset, domain in sorted(settings, key=lambda setting: setting[0] == AVERAGE):
        here = [row for row in summary if (row["dataset"], row["domain"]) == (dataset, domain)]
        lines = [(_name(row), [_cell(row[c]) for c in columns]) for row in here]
        body = _aligned("recall", columns.values(), lines, width=width)
        blocks.append(" / ".join(part for part in (dataset, domain) if part) + "\n" + body)
    return "\n\n".join(blocks)


def detection_text(summary: Sequence[Summary], detectors: Mapping[str, str]) -> str:
    """A block for each detector: AUROC near, far and in all domains, and how many known images it flags under shift.

    Where a task has several datasets or domains, their mean.
    """
    blocks = []
    for name, title in detectors.items():
        lines = []
        for variant in dict.fromkeys(map(Variant.of, summary)):
            own = [r for r in summary if (Variant.of(r), r["detector"]) == (variant, name)]
            cells = [_cell(task_mean(own, task, metric)) for task, metric, _ in DETECTION]
            if own:
                lines.append((_name(own[0]), cells))
        blocks.append(_aligned(title, [head for *_, head in DETECTION], lines, WIDE))
    return "\n\n".join(blocks)


def task_mean(summary: Sequence[Summary], task: str, metric: DetectionMetric) -> Mean:
    """Of a task: the mean over datasets or domains where there is one, else of the first; None without any."""
    entries = [row for row in summary if row.get("task") == task]
    means = [row for row in entries if row["dataset"] == AVERAGE]
    return next((row.get(metric) for row in [*means, *entries]), None)


def published_text(published: Sequence[PublishedRow], dataset: str) -> str:
    """The published numbers of one dataset, each with its tag and source; empty without any.

    Their H is the harmonic mean of the printed numbers, so it stands below "H of means".
    """
    lines = []
    for row in published:
        if row["dataset"] == dataset:
            cells = (row["base"], row["new"], None, row["H"], None)
            numbers = "".join(f"{_cell(v):>{WIDTH}}" for v in cells)
            lines.append(f"\n{row['method'] + ' (published)':<{NAME}}{numbers}  [{row['tag']}] {row['source']}")
    return "".join(lines)


def _aligned(
    title: str,
    heads: Iterable[object],
    lines: Iterable[tuple[str, Iterable[str]]],
    name: int = NAME,
    width: int = WIDTH,
) -> str:
    """Headings and lines of a name and its cells: names `name` wide or more to the left, cells `width` to the right."""
    lines = list(lines)
    name = max([name, *[len(first) for first, _ in lines]])
    return "\n".join(
        f"{first:<{name}}" + "".join(f"{cell:>{width}}" for cell in cells) for first, cells in ((title, heads), *lines)
    )


def _name(row: Of) -> str:
    """The host as it is named in commands; a control in few words, so that its line has room."""
    variant = Variant.of(row)
    trained, tested = words_of(variant.control)
    return variant.host + " + OGEN" * variant.ogen + trained + ", zero-shot" * bool(tested)


def _cell(value: object) -> str:
    """As in the report, with hyphens for its dashes."""
    return plus_minus(value).replace(DASH, "-").replace(MINUS, "-")


# The functions of `ogenlib.bench.protocols.registry.LISTINGS`.
LISTED: Mapping[str, Callable[[Results], str]] = MappingProxyType({
    "halves": halves_text, "datasets": datasets_text, "settings": settings_text,
    "recalls": lambda document: retrieval_text(document["summary"]),
    "detectors": lambda document: detection_text(document["summary"], document["protocol"]["detectors"]),
})  # fmt: skip

"""A variant of a host on a task: made, trained, tested with its control, and averaged over seeds.

Notation: `N` images, `C` names.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.common.kept_rows import kept_rows
from benchmarks.ogen.tasks import StudyTask
from ogenlib import evaluate
from ogenlib.bench.protocols.parts.controls import without_images_by_zero_shot
from ogenlib.hosts import Host, build
from ogenlib.results import tables as results
from ogenlib.results.types import Measures, Metric
from ogenlib.runs.assembly import assemble
from ogenlib.train.loop import fit

SCORES: tuple[Metric, ...] = (
    "base", "new", "H", "joint_base", "joint_new", "joint_H", "ausuc", "gate_auroc",
)  # fmt: skip
CONTROL = ", control"  # behind a variant's name: names without images are scored by zero-shot


@dataclass(frozen=True)
class Variant:
    """One row of a table: a host and, unless None, OGEN's arguments.

    Attributes:
        names: what is known of the new names in training: ``known``, ``held out`` or ``all`` (KgCoOp anchoring them).
    """

    name: str
    host: str
    ogen: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    names: str = "known"


def make_host(variant: Variant, task: StudyTask) -> Host:
    options = dict(variant.options)
    if variant.names == "all":
        options["anchor_names"] = list(task.split.new)
    unknown = task.split.new if variant.names == "known" else None
    return assemble(
        variant.host, task.clip, task.split.base, task.templates, options, ogen=variant.ogen, unknown=unknown
    )


def without_evidence(variant: Variant) -> Variant:
    """These studies ask what training does, and what OGEN's evidence adds comes in after it (`ogen/evidence.py`)."""
    return variant if variant.ogen is None else replace(variant, ogen={"evidence": 0.0, **variant.ogen})


def run_one(
    variant: Variant,
    task: StudyTask,
    seed: int,
    epochs: int,
    train: Mapping[str, Any] | None = None,
    curve: bool = False,
) -> dict[str, Any]:
    """Train, with settings of `TrainConfig` in `train`, and test once; scores of each test domain.

    ``seconds`` are those of the epochs, ``seconds_fit`` those of preparation, epochs and what is measured after them.
    """
    host = make_host(without_evidence(variant), task)
    bank, test = task.banks(host)
    train = {} if train is None else train
    near = test.of_domain(test.domains[0])

    def measure(trained: Host, _: int) -> dict[str, float]:
        scores = evaluate.base_to_new(trained, near, task.split).scores
        return {key: scores[key] for key in ("base", "new", "H", "joint_H")}

    history, began, seconds = None, time.perf_counter(), 0.0
    if host.trainable() or host.training_free:
        history = fit(host, bank, epochs=epochs, seed=seed, measure=measure if curve else None, **train)
        seconds = sum(history.column("seconds"))
    seconds_fit = time.perf_counter() - began
    seen = evaluate.of_split(test, task.split)
    logits = evaluate.predict_logits(host, seen, (*task.split.base, *task.split.new))
    outcome = evaluate.split_scores(logits, seen, task.split)
    row = row_of(variant, task, seed, epochs, host, outcome, seconds=seconds, seconds_fit=seconds_fit, began=began)
    if has_control(variant, host):
        row["control"] = control_domains(task, logits)
    if curve and history is not None:
        row["curve"] = {k: history.column(k) for k in ("epoch", "base", "new", "H", "joint_H")}
    return row


def has_control(variant: Variant, host: Host) -> bool:
    """A trained host alone has, and one that is held at zero-shot by KL and nothing else."""
    plain = variant.ogen is None or variant.ogen.get("preset") == "zero-shot-kl"
    return plain and bool(host.trainable())


def control_domains(task: StudyTask, logits: Tensor) -> dict[str, dict[str, float]]:
    """The scores in each domain if zero-shot scored the names without images, in place of these logits `(N, C)`."""
    names, n_base = (*task.split.base, *task.split.new), len(task.split.base)
    frozen = evaluate.of_split(task.test, task.split)
    zero = build("zero_shot", task.clip, task.split.base, templates=list(task.templates))
    mixed = without_images_by_zero_shot(logits, evaluate.predict_logits(zero, frozen, names), n_base)
    return scored_domains(evaluate.split_scores(mixed, frozen, task.split))


def scored_domains(outcome: evaluate.BaseToNew) -> dict[str, dict[str, float]]:
    return {domain: {key: scores[key] for key in SCORES} for domain, scores in outcome.domains.items()}


def apart(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row, and behind it that of its control, where it has one."""
    own = {key: value for key, value in row.items() if key != "control"}
    if "control" not in row:
        return [own]
    plain = {key: value for key, value in own.items() if key != "curve"}
    return [own, {**plain, "variant": row["variant"] + CONTROL, "domains": row["control"]}]


def row_of(
    variant: Variant,
    task: StudyTask,
    seed: int,
    epochs: int,
    host: Host,
    outcome: evaluate.BaseToNew,
    began: float,
    **more: Any,
) -> dict[str, Any]:
    """What was run, `more`, the seconds since it `began`, and the scores."""
    return {
        "variant": variant.name,
        "host": variant.host,
        "task": task.name,
        "family": task.family,
        "seed": seed,
        "epochs": epochs,
        **more,
        "seconds_all": time.perf_counter() - began,
        "parameters": trained_parameters(host),
        "domains": scored_domains(outcome),
    }


def trained_parameters(host: Host) -> int:
    return sum(p.numel() for p in host.trainable().values())


def run_all(
    cells: Iterable[tuple[Variant, StudyTask, int, int]], work: Path, *, curve: bool = False
) -> list[dict[str, Any]]:
    """All rows, each kept in `work` under a name made of everything that decides it."""

    def decides(variant: Variant, task: StudyTask, seed: int, epochs: int) -> tuple[Any, ...]:
        return (*of_task(variant, task), seed, epochs, curve)

    rows = kept_rows(cells, work, decides, partial(run_one, curve=curve))
    return [one for row in rows for one in apart(row)]


def of_task(variant: Variant, task: StudyTask) -> tuple[Any, ...]:
    """What decides a row besides seed and length: the variant, and what it is trained and tested on."""
    return (asdict(variant), task.name, task.bank.fingerprint, task.test.fingerprint, task.clip.weights_hash)


def mean_scores(runs: Sequence[Mapping[str, float]]) -> Measures:
    """`SCORES`, each the mean over the runs."""
    means: Measures = {}
    for score in SCORES:
        means[score] = sum(run[score] for run in runs) / len(runs)
    return means


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and std over the seeds of each (host, variant, family, domain); tasks of a family are averaged first."""
    cells: dict[tuple[str, str, str, str], dict[int, list[dict[str, float]]]] = {}
    for row in rows:
        for domain, scores in row["domains"].items():
            domain = domain if row["family"].startswith("emoji") else ""
            seeds = cells.setdefault((row["host"], row["variant"], row["family"], domain), {})
            seeds.setdefault(row["seed"], []).append(scores)
    summary = []
    for (host, variant, family, domain), seeds in cells.items():
        means = [mean_scores(tasks) for tasks in seeds.values()]
        entry = {
            "host": host,
            "variant": variant,
            "family": family,
            "domain": domain,
            "n_seeds": len(seeds),
            "n_tasks": len(next(iter(seeds.values()))),
        }
        summary.append(entry | {k: results.mean_std([m[k] for m in means]) for k in SCORES})
    return summary

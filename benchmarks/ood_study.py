"""Detectors of unknown classes on real CLIP features: OGENDetector and all of pytorch-ood's that read features.

    python benchmarks/ood_study.py --features DIR      # DIR: the real CLIP features; writes results/ood.json

Settings are chosen by mean AUROC over the validation tasks, which hold no test row and no class that is unknown in a
test. With more than 16 rows of a class there are draws, one for each seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from clip_features import add_option
from ood_detectors import Entry, entries
from ood_tasks import FAR, NEAR, VOCABULARY, Task, test_tasks, validation_tasks, vocabulary
from torch import Tensor

from ogenlib import results
from ogenlib.files import write_json

SCHEMA = "ogenlib.ood/1"
METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive")
SHOTS = 16
OURS = ("OGENDetector", "MCM")  # measured on the validation tasks though nothing is chosen


def measures(known: Tensor, unknown: Tensor) -> dict[str, float]:
    """In percent. FPR95 with unknown positive: known images flagged where 95 % of the unknown are caught; with known
    positive: unknown images let through where 95 % of the known are."""
    a, b = known.double().numpy(), unknown.double().numpy()
    return {
        "auroc": 100 * _auroc(a, b), "aupr_in": 100 * _aupr(-a, -b), "aupr_out": 100 * _aupr(b, a),
        "fpr95_ood_positive": 100 * float((a >= np.sort(b)[int(np.floor(0.05 * len(b)))]).mean()),
        "fpr95_id_positive": 100 * float((b <= np.sort(a)[int(np.ceil(0.95 * len(a))) - 1]).mean()),
    }  # fmt: skip


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    ordered = np.sort(known)
    below, upto = np.searchsorted(ordered, unknown, "left"), np.searchsorted(ordered, unknown, "right")
    return float((below + upto).mean() / 2 / len(known))


def _aupr(positive: np.ndarray, negative: np.ndarray) -> float:
    """Average precision, rows of equal score together."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(order < len(positive))
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / len(positive)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def scored(entry: Entry, settings: dict[str, Any], task: Task) -> dict[str, float]:
    with torch.no_grad():
        score = entry.make(task, settings)
        return measures(score(task.known).float(), score(task.unknown).float())


def choose(entry: Entry, tasks: list[Task]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings with the highest mean AUROC over the validation tasks, and all that were tried."""
    fitting = [t for t in tasks if entry.setting != "unknown names" or (t.others is not None and len(t.others))]
    tried: list[dict[str, Any]] = []
    for settings in entry.choices:
        found = [scored(entry, dict(settings), task) for task in fitting]
        means = {key: mean(f[key] for f in found) for key in METRICS}
        tried.append({"settings": dict(settings), "tasks": len(fitting), **means})
    return dict(max(tried, key=lambda t: t["auroc"])["settings"]), tried


def run(folder: Path, seeds: Sequence[int], only: Sequence[str] | None, path: Path) -> dict[str, Any]:
    """The whole study; written after each detector, so that a stopped one leaves what it has."""
    logging.getLogger("pytorch_ood").setLevel(logging.ERROR)
    tests, plain = test_tasks(folder), test_tasks(folder, exclude=False)[: len(FAR)]
    validation = validation_tasks(folder)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": {
            "name": "ood", "backbone": "OpenAI CLIP ViT-B/32, features computed elsewhere", "seeds": list(seeds),
            "shots": {"imagenet": 4, "dtd": SHOTS, "cars": SHOTS}, "vocabulary": list(VOCABULARY),
            "excluded": {t.name: list(t.excluded) for t in tests if t.excluded},
            "rows": {t.name: {"known": len(t.known), "unknown": len(t.unknown)} for t in tests},
            "views": "rows of ImageNet and fitted rows of Cars are means of augmented crops, all others single views",
            "selection": "settings by mean AUROC over validation tasks of known classes", "versions":
            results.versions(), "git": results.git_revision(), "command": shlex.join(sys.argv), "date": results.now(),
        },
        "validation": {}, "rows": [], "without_exclusions": [], "seconds": {}, "failed": {},
    }  # fmt: skip

    def measure(name: str, entry: Entry) -> None:
        # Nothing to choose: the slow ones among these take minutes on the validation tasks.
        single = len(entry.choices) == 1 and not name.startswith(OURS)
        settings, tried = (dict(entry.choices[0]), []) if single else choose(entry, validation)
        document["validation"][name] = {"chosen": settings, "tried": tried}
        for task in tests:
            if entry.setting == "unknown names" and task.others is None:
                continue
            drawn = entry.setting != "names" and int(torch.bincount(task.fit_y).max()) > SHOTS
            for seed in seeds if drawn else seeds[:1]:
                found = scored(entry, settings, task.first(SHOTS, seed))
                document["rows"].append({"detector": name, "setting": entry.setting, "task": task.name, "seed": seed,
                                         **found})  # fmt: skip
        if entry.setting != "unknown names":
            for task in plain:
                found = scored(entry, settings, task)
                document["without_exclusions"].append({"detector": name, "task": task.name, **found})

    for name, entry in entries(vocabulary(folder)).items():
        if only and name not in only:
            continue
        began, kept = time.perf_counter(), len(document["rows"])
        try:
            measure(name, entry)
        except ValueError as error:  # some want every class to be predicted right at least once
            document["failed"][name] = str(error)
            del document["rows"][kept:]
        document["seconds"][name] = round(time.perf_counter() - began, 2)
        document["summary"] = summarize(document["rows"])
        write_json(path, document)
    return document


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each metric over the far and over the near tasks, each task's seeds averaged first."""
    summary = []
    for name in dict.fromkeys(r["detector"] for r in rows):
        own = [r for r in rows if r["detector"] == name]
        for group, tasks in (("far", FAR), ("near", NEAR)):
            of = {t: [r for r in own if r["task"] == t] for t in tasks}
            if all(of.values()):
                means = {m: mean(mean(r[m] for r in found) for found in of.values()) for m in METRICS}
                summary.append({"detector": name, "setting": own[0]["setting"], "tasks": group, **means})
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Detectors of unknown classes on real CLIP features.")
    add_option(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="of the fitted rows")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="detectors to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ood.json", metavar="FILE",
                        help="what is written (default: benchmarks/results/ood.json)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        document = run(args.features, args.seeds, args.only, args.out)
    except (FileNotFoundError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(document["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

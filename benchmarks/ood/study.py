"""Detectors of unknown classes on real CLIP features: OGENDetector and all of pytorch-ood's that read features.

    python -m benchmarks.ood.study --features DIR      # DIR: the real CLIP features; writes results/ood.json
    python -m benchmarks.ood.study --features DIR --only GMM        # this one again; the others' rows stay

Settings are chosen by mean AUROC over the validation tasks, which hold no test row and no class that is unknown in a
test. With more than 16 rows of a class there are draws, one for each seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.clip_features import add_option
from benchmarks.common.groups import grouped
from benchmarks.common.options import add_seeds, parser_of
from benchmarks.common.origin import origin
from benchmarks.common.results_file import read_results
from benchmarks.ood.detectors import Entry, Scores, entries
from benchmarks.ood.tasks import FAR, NEAR, VOCABULARY, Task, test_tasks, validation_tasks, vocabulary
from ogenlib.detect.measures import METRICS, histogram, measures, roc
from ogenlib.utils.documents import write_json
from ogenlib.utils.provenance import git_revision, now

SCHEMA = "ogenlib.ood/1"
SHOTS = 16
PICTURED = ("MCM", "OGENDetector", "OGENDetector, images")  # whose scores are drawn
OURS = ("OGENDetector", "MCM")  # measured on the validation tasks though nothing is chosen


class Scored:
    """A detector with its settings; what tasks have in common is fitted and scored once."""

    def __init__(self, entry: Entry, settings: Mapping[str, Any]) -> None:
        self.entry, self.settings = entry, settings
        self.scorers: dict[str, Scores] = {}
        self.scores: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def sides(self, task: Task) -> tuple[Tensor, Tensor]:
        """Scores of the known and of the unknown features."""
        others = () if task.others is None else (task.others,)
        fitted = content(task.names, *others, task.fit_x, task.fit_y)
        if fitted not in self.scorers:
            self.scorers[fitted] = self.entry.make(task, self.settings)
        sides = []
        for features in (task.known, task.unknown):
            key = fitted, content(features)
            if key not in self.scores:
                self.scores[key] = self.scorers[fitted](features).float()
            sides.append(self.scores[key])
        return sides[0], sides[1]

    def measures(self, task: Task) -> dict[str, float]:
        return measures(*self.sides(task))

    def picture(self, task: Task) -> dict[str, Any]:
        """Bin counts and curve, enough to draw both without the features."""
        known, unknown = self.sides(task)
        curve = roc(known, unknown, torch.linspace(0, 1, 101))
        return {**histogram({"known": known, "unknown": unknown}), "roc": curve}


def content(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def choose(entry: Entry, tasks: list[Task]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings with the highest mean AUROC over the validation tasks, and all that were tried."""
    fitting = [t for t in tasks if entry.setting != "unknown names" or (t.others is not None and len(t.others))]
    tried: list[dict[str, Any]] = []
    for settings in entry.choices:
        measured = [Scored(entry, settings).measures(task) for task in fitting]
        means = {key: mean(one[key] for one in measured) for key in METRICS}
        tried.append({"settings": dict(settings), "tasks": len(fitting), **means})
    return dict(max(tried, key=lambda t: t["auroc"])["settings"]), tried


def run(folder: Path, seeds: Sequence[int], only: Sequence[str] | None, path: Path) -> dict[str, Any]:
    """The whole study, or some detectors in a file that has others; written after each, so that a stopped one leaves
    what it has.

    Raises:
        ValueError: an unknown detector, or a file of another protocol.
    """
    logging.getLogger("pytorch_ood").setLevel(logging.ERROR)
    every = entries(vocabulary(folder))
    unknown = [name for name in only or () if name not in every]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no detector of this study; it has {', '.join(every)}")
    tests, plain = test_tasks(folder), test_tasks(folder, exclude=False)[: len(FAR)]
    validation = validation_tasks(folder)
    document = started(protocol(tests, seeds), path if only else None)

    def measure(name: str, entry: Entry) -> None:
        # Nothing to choose: the slow ones among these take minutes on the validation tasks.
        single = len(entry.choices) == 1 and not name.startswith(OURS)
        settings, tried = (dict(entry.choices[0]), []) if single else choose(entry, validation)
        document["validation"][name] = {"chosen": settings, "tried": tried}
        detector = Scored(entry, settings)
        for task in tests:
            if entry.setting == "unknown names" and task.others is None:
                continue
            drawn = entry.setting != "names" and int(torch.bincount(task.fit_y).max()) > SHOTS
            for seed in seeds if drawn else seeds[:1]:
                fitted = task.first(SHOTS, seed)
                document["rows"].append(
                    {
                        "detector": name,
                        "setting": entry.setting,
                        "task": task.name,
                        "seed": seed,
                        **detector.measures(fitted),
                    }
                )
                if name in PICTURED and seed == seeds[0]:
                    document["pictures"].setdefault(name, {})[task.name] = detector.picture(fitted)
        if entry.setting != "unknown names":
            for task in plain:
                measured = detector.measures(task)
                document["without_exclusions"].append({"detector": name, "task": task.name, **measured})

    for name, entry in every.items():
        if only and name not in only:
            continue
        began = time.perf_counter()
        forget(document, name)
        try:
            measure(name, entry)
        except (ImportError, ValueError) as error:  # some want every class to be predicted right at least once
            forget(document, name)
            document["failed"][name] = str(error)
        document["runs"][name] = {
            "seconds": round(time.perf_counter() - began, 2),
            "git": git_revision(),
            "threads": torch.get_num_threads(),
            "date": now(),
        }
        document["rows"].sort(key=lambda row: list(every).index(row["detector"]))
        document["without_exclusions"].sort(key=lambda row: list(every).index(row["detector"]))
        document["summary"] = summarize(document["rows"])
        write_json(path, document)
    return document


def protocol(tests: Sequence[Task], seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "name": "ood",
        "backbone": "OpenAI CLIP ViT-B/32, features computed elsewhere",
        "seeds": list(seeds),
        "shots": {"imagenet": 4, "dtd": SHOTS, "cars": SHOTS},
        "vocabulary": list(VOCABULARY),
        "excluded": {t.name: list(t.excluded) for t in tests if t.excluded},
        "rows": {t.name: {"known": len(t.known), "unknown": len(t.unknown)} for t in tests},
        "views": "rows of ImageNet and fitted rows of Cars are means of augmented crops, all others single views",
        "selection": "settings by mean AUROC over validation tasks of known classes",
        **origin("ood.study"),
    }


def started(card: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """A document without rows, or with those of the file, if what it measured is the same."""
    empty: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": card,
        "validation": {},
        "rows": [],
        "without_exclusions": [],
        "pictures": {},
        "runs": {},
        "failed": {},
        "summary": [],
    }
    if path is None or not path.is_file():
        return empty
    earlier = read_results(path)
    same = ("seeds", "shots", "vocabulary", "excluded", "rows", "selection")
    other = [key for key in same if earlier.get("protocol", {}).get(key) != card[key]]
    if earlier.get("schema") != SCHEMA or other:
        raise ValueError(
            f"{path} was measured otherwise ({', '.join(other) or 'schema'}); leave --only out, or name another --out"
        )
    return {key: earlier.get(key, value) for key, value in empty.items()} | {"protocol": card}


def forget(document: dict[str, Any], name: str) -> None:
    """Drop all that is known of a detector."""
    for part in ("rows", "without_exclusions"):
        document[part] = [row for row in document[part] if row["detector"] != name]
    for part in ("validation", "pictures", "failed", "runs"):
        document[part].pop(name, None)


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each metric over the far and over the near tasks, each task's seeds averaged first."""
    summary = []
    for name, own in grouped(rows, "detector").items():
        for group, tasks in (("far", FAR), ("near", NEAR)):
            of = {t: [r for r in own if r["task"] == t] for t in tasks}
            if all(of.values()):
                means = {m: mean(mean(r[m] for r in runs) for runs in of.values()) for m in METRICS}
                summary.append({"detector": name, "setting": own[0]["setting"], "tasks": group, **means})
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, "ood.json")
    add_option(parser)
    add_seeds(parser)
    parser.add_argument(
        "--only",
        nargs="+",
        default=None,
        metavar="NAME",
        help="detectors to run; others' rows in the file stay (all, in a new file)",
    )
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

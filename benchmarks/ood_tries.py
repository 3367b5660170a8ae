"""Scores of unknown classes from names alone that were tried to beat OGENDetector's, on validation tasks only.

    python benchmarks/ood_tries.py --features DIR      # DIR: the real CLIP features; writes results/ood-tries.json

No test row and no test class is looked at here (`ood_tasks.validation_tasks`). What would be kept is what beats
OGENDetector by mean AUROC over all thirteen tasks; the mean over the five of one dataset against another is beside it,
since those are the far ones.

Notation: `B` images, `C` names, `D` embedding, `S` similarities `(B, C)`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from clip_features import add_option
from ood_detectors import gaussian_names
from ood_study import command
from ood_tasks import Task, validation_tasks
from torch import Tensor

from ogenlib.detect import OGENDetector, mine_negatives
from ogenlib.detect.measures import measures
from ogenlib.results import tables as results
from ogenlib.utils.documents import write_json

SCHEMA = "ogenlib.ood-tries/1"
TEMPERATURE, SHARE, SPREAD = 0.01, 0.3, 1.5  # OGENDetector's
MADE = 4  # rows synthesized from a name
Score = Callable[[Tensor], Tensor]  # unit rows (B, D) -> (B,), larger is more unknown


@dataclass(frozen=True)
class Try:
    """A score with one setting; `make` sees the known names `(C, D)` and nothing else."""

    name: str
    setting: str
    make: Callable[[Tensor], Score]


def energy(s: Tensor, t: float = TEMPERATURE) -> Tensor:
    return t * torch.logsumexp(s / t, dim=1)


def mcm(names: Tensor) -> Score:
    return lambda z: -(z @ names.T).softmax(dim=1).amax(dim=1)


def detector(names: Tensor) -> Score:
    return OGENDetector(None, class_embeddings=names).predict_features


def minus_mean(share: float) -> Callable[[Tensor], Score]:
    def make(names: Tensor) -> Score:
        def score(z: Tensor) -> Tensor:
            s = z @ names.T
            return share * s.mean(dim=1) - energy(s)

        return score

    return make


def gen(scale: float, gamma: float = 0.1, most: int = 100) -> Callable[[Tensor], Score]:
    """Generalised entropy (Liu et al., CVPR 2023) of the softmax at `scale`."""

    def make(names: Tensor) -> Score:
        def score(z: Tensor) -> Tensor:
            p = (scale * z @ names.T).softmax(dim=1).topk(min(most, len(names)), dim=1).values.double()
            return (p.pow(gamma) * (1 - p).pow(gamma)).sum(dim=1).float()

        return score

    return make


def standardised(names: Tensor) -> Score:
    """How many standard deviations of its similarities the nearest name stands out."""

    def score(z: Tensor) -> Tensor:
        s = z @ names.T
        return (s.mean(dim=1) - energy(s)) / s.std(dim=1)

    return score


def known_rows(names: Tensor, seed: int = 0) -> Tensor:
    """Synthesized images of the known names: a name with differences of other names around it."""
    draws = torch.Generator().manual_seed(seed)
    rows = names.repeat_interleave(max(MADE, -(-512 // len(names))), dim=0)
    first, second = (torch.randint(len(names), (len(rows),), generator=draws) for _ in range(2))
    return F.normalize(rows + SPREAD * (names[first] - names[second]), dim=-1)


def mixed(weight: float, scale: float = 100.0) -> Callable[[Tensor], Score]:
    """GEN and the mean-subtracted energy, each in standard deviations over synthesized known rows."""

    def make(names: Tensor) -> Score:
        parts = (minus_mean(SHARE)(names), gen(scale)(names))
        rows = known_rows(names)
        at = [(found.mean(), found.std().clamp(min=1e-9)) for found in (part(rows) for part in parts)]

        def score(z: Tensor) -> Tensor:
            a, b = ((part(z) - middle) / width for part, (middle, width) in zip(parts, at, strict=True))
            return a + weight * b

        return score

    return make


def ranked(worst: bool) -> Callable[[Tensor], Score]:
    """The place of both scores among those of synthesized known rows: their mean, or the more unknown of the two."""

    def make(names: Tensor) -> Score:
        parts = (minus_mean(SHARE)(names), gen(100.0)(names))
        rows = known_rows(names)
        ordered = [part(rows).sort().values for part in parts]

        def score(z: Tensor) -> Tensor:
            places = []
            for part, known in zip(parts, ordered, strict=True):
                found = part(z)
                place = torch.searchsorted(known, found).double() / len(known)
                # Beyond the synthesized rows a rank says nothing more; the distance to them does.
                width = known.std().clamp(min=1e-9)
                place = place + ((found - known[-1]) / width).clamp(min=0) + ((found - known[0]) / width).clamp(max=0)
                places.append(place)
            both = torch.stack(places)
            return (both.amax(dim=0) if worst else both.mean(dim=0)).float()

        return score

    return make


def gaussian_negatives(keep: float, weight: float, count: int = 4096, wider: float = 1.0) -> Callable[[Tensor], Score]:
    """Names drawn like the known ones; those far from all known ones, or all, compete."""

    def make(names: Tensor) -> Score:
        made = gaussian_names(names, count, wider)
        return against(names, made[mine_negatives(names, made, keep)], weight)

    return make


def told_gaussian(count: int) -> Callable[[Tensor], Score]:
    """OGENDetector that takes drawn names for names of unknown classes, and learns their weight."""

    def make(names: Tensor) -> Score:
        return OGENDetector(None, None, names, gaussian_names(names, count)).predict_features

    return make


def outside_negatives(step: float, keep: float, weight: float) -> Callable[[Tensor], Score]:
    """Names pushed away from the mean beyond one name in the direction of the difference to another one."""

    def make(names: Tensor) -> Score:
        draws = torch.Generator().manual_seed(0)
        first, second = (torch.randint(len(names), (4096,), generator=draws) for _ in range(2))
        made = F.normalize(names[first] + step * (names[first] - names[second]), dim=-1)
        return against(names, made[mine_negatives(names, made, keep)], weight)

    return make


def against(names: Tensor, negatives: Tensor, weight: float) -> Score:
    return lambda z: weight * energy(z @ negatives.T) - energy(z @ names.T)


def tries() -> list[Try]:
    found = [
        Try("MCM", "temperature 1", mcm), Try("OGENDetector", "default", detector),
        Try("energy minus mean", "share 0.3", minus_mean(0.3)), Try("nearest name in deviations", "", standardised),
    ]  # fmt: skip
    found += [Try("GEN", f"scale {scale:g}", gen(scale)) for scale in (10.0, 30.0, 50.0, 100.0)]
    found += [Try("GEN, all names", f"scale {scale:g}", gen(scale, most=10**6)) for scale in (50.0, 100.0)]
    found += [Try("energy minus mean, and GEN", f"weight {w:g}", mixed(w)) for w in (0.1, 0.3, 1.0)]
    found += [Try("energy minus mean, and GEN at scale 50", f"weight {w:g}", mixed(w, 50.0)) for w in (0.1, 0.3)]
    found += [Try("ranks of both", word, ranked(worst)) for word, worst in (("mean", False), ("more unknown", True))]
    found += [Try("Gaussian names as negatives", f"keep {keep:g}, weight {w:g}", gaussian_negatives(keep, w))
              for keep, weights in ((0.15, (0.3, 1.0)), (1.0, (0.2, 0.3, 0.4, 0.5, 0.6, 1.0))) for w in weights]
    found += [Try("Gaussian names as negatives", f"{count} of them, weight {w:g}", gaussian_negatives(1.0, w, count))
              for count in (512, 16384) for w in (0.3, 0.4)]  # fmt: skip
    found += [Try("Gaussian names as negatives", f"{wider:g} times as wide, weight {w:g}",
                  gaussian_negatives(1.0, w, wider=wider)) for wider in (0.5, 2.0) for w in (0.3, 0.5)]  # fmt: skip
    found += [Try("OGENDetector told Gaussian names", f"{n} of them", told_gaussian(n)) for n in (512, 4096)]
    found += [Try("pushed names as negatives", f"step {step:g}, weight {w:g}", outside_negatives(step, 0.15, w))
              for step in (0.5, 1.0) for w in (0.3, 1.0)]  # fmt: skip
    return found


@torch.no_grad()
def measured(one: Try, tasks: Sequence[Task]) -> dict[str, Any]:
    """AUROC and FPR95 (unknown positive) of every task, and their means over all and over dataset against dataset."""
    found = {}
    for task in tasks:
        score = one.make(task.names)
        scores = measures(score(task.known).float(), score(task.unknown).float())
        found[task.name] = {key: scores[key] for key in ("auroc", "fpr95_ood_positive")}
    far = [task.name for task in tasks if task.others is None]
    means = {group: {key: mean(found[name][key] for name in names) for key in ("auroc", "fpr95_ood_positive")}
             for group, names in (("all", list(found)), ("far", far))}  # fmt: skip
    return {"try": one.name, "setting": one.setting, "means": means, "tasks": found}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Names-only scores on validation tasks of real CLIP features.")
    add_option(parser)
    out = Path(__file__).parent / "results" / "ood-tries.json"
    parser.add_argument("--out", type=Path, default=out, metavar="FILE",
                        help="what is written (default: benchmarks/results/ood-tries.json)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        tasks = validation_tasks(args.features)
    except (FileNotFoundError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    rows = [measured(one, tasks) for one in tries()]
    card = {"name": "ood-tries", "backbone": "OpenAI CLIP ViT-B/32, features computed elsewhere", "tasks": len(tasks),
            "selection": "by mean AUROC over all validation tasks; no test task is read", "versions":
            results.versions(), "git": results.git_revision(), "command": command(), "date": results.now()}  # fmt: skip
    write_json(args.out, {"schema": SCHEMA, "protocol": card, "rows": rows})
    for row in rows:
        both = ", ".join(f"{k} {m['auroc']:.1f} / {m['fpr95_ood_positive']:.1f}" for k, m in row["means"].items())
        print(f"{row['try']} ({row['setting']}): {both}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

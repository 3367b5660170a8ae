"""ood: train on the base names, then tell images of known classes from images of none.

Four tasks, with the base names as what is known:

- ``near``: test images of the base names against those of the new names, in the domain of training. No training and no
  detector is told the new names.
- ``far``: the same known images against those of each target dataset. Classes of a target whose name holds a known
  name are left out, and of bundled targets every drawing of a thing that the source has in any drawing.
- ``full-spectrum``, after "Full-Spectrum Out-of-Distribution Detection", Yang et al., IJCV 2023,
  https://arxiv.org/abs/2204.05306: known images of all tested domains against the near unknown ones.
- ``shift``: known images of the domain of training against known images of another one. These must not be told apart:
  the AUROC to wish for is 50, and 5 % flagged where 95 % of the first are let pass.

Each task is measured for every detector of `ogenlib.detect.of_host.DETECTORS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ogenlib.bench.protocols.cross_dataset import target_dataset, targets_of
from ogenlib.bench.protocols.parts.loading import load_source, other_things
from ogenlib.bench.protocols.parts.plan import Outcome, Part, Plan, Tested, home_of
from ogenlib.bench.protocols.registry import NO_TARGETS, ProtocolInfo, Shown, fewer_domains, register
from ogenlib.data import COOP11, Dataset, ImageSet, base_new_split, list_datasets
from ogenlib.detect.measures import histogram, measures, roc
from ogenlib.detect.of_host import DETECTORS, scorers, seen
from ogenlib.detect.overlap import overlapping
from ogenlib.evaluate.scores import accuracy
from ogenlib.hosts import Host
from ogenlib.results.tables import METRICS

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

ROC_STEPS = 100  # shares of known images flagged at which curves are kept
SHOWN = ("known", "shifted", "near", "far")  # groups of images in pictures


@dataclass(frozen=True)
class OODJudge:
    """Scores the source's part, then the far ones.

    parts: the source's first.
    known: the trained names, the first of the source's.
    """

    parts: tuple[Part, ...]
    known: tuple[str, ...]
    home: str

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        """Nothing: detectors are made once, after training."""
        return {}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        banks = tested.of(host)
        images = [seen(host, bank) for bank in banks]
        trained = tested.trained_of(host)
        labelled = None
        if trained is not None:
            picked = trained.select(self.known)
            labelled = (seen(host, picked), picked.labels.cpu())
        detectors, missing = scorers(host, labelled)
        labels = banks[0].labels.cpu()
        known, domains = labels < len(self.known), banks[0].domains
        at_home = torch.tensor([domain == self.home for domain in domains], dtype=torch.bool)
        first = known & at_home
        base = accuracy(images[0].logits[first], labels[first])
        rows: list[dict[str, Any]] = []
        pictures: dict[str, Any] = {}
        for name, score in detectors.items():
            source, *far = [score(one) for one in images]
            tasks = self._tasks(source, far, known, at_home, domains)
            rows += [
                {
                    **dict.fromkeys(METRICS),
                    "dataset": dataset,
                    "domain": domain,
                    "task": task,
                    "detector": name,
                    "base": base if task == "near" else None,
                    **_measured(a, b),
                }
                for dataset, domain, task, a, b in tasks
            ]
            pictures[name] = _pictures(tasks)
        return Outcome(rows, [], [], detection={"detectors": pictures, "missing": missing})

    def _tasks(
        self, source: Tensor, far: Sequence[Tensor], known: Tensor, at_home: Tensor, domains: Sequence[str]
    ) -> list[tuple[str, str, str, Tensor, Tensor]]:
        """(dataset, domain, task, scores of the known, scores of the others) of every task that has images."""
        name, first, near = self.parts[0].dataset, source[known & at_home], source[~known & at_home]
        tasks = [(name, self.home, "near", first, near)]
        for part, scores in zip(self.parts[1:], far, strict=True):
            tasks.append((part.dataset, self.home, "far", first, scores))
        others = [domain for domain in dict.fromkeys(domains) if domain != self.home]
        if others:
            tasks.append((name, "", "full-spectrum", source[known], near))
        for domain in others:
            there = torch.tensor([one == domain for one in domains], dtype=torch.bool)
            tasks.append((name, domain, "shift", first, source[known & there]))
        return [task for task in tasks if len(task[3]) and len(task[4])]


def _measured(known: Tensor, others: Tensor) -> dict[str, float]:
    """All measures, and the share of the others that is flagged where 95 % of the known pass."""
    scores = measures(known, others)
    return {**scores, "flagged": 100 - scores["fpr95_id_positive"]}


def _pictures(tasks: Sequence[tuple[str, str, str, Tensor, Tensor]]) -> dict[str, Any]:
    """Histogram and curves of one detector; far and shifted images of all datasets and domains together."""
    of = {
        task: torch.cat([b for _, _, kind, _, b in tasks if kind == task])
        for task in ("near", "far", "shift")
        if any(kind == task for _, _, kind, _, _ in tasks)
    }
    known = tasks[0][3]
    groups = {"known": known, "shifted": of.get("shift"), "near": of.get("near"), "far": of.get("far")}
    at = torch.linspace(0, 1, ROC_STEPS + 1)
    curves = {name: roc(known, scores, at) for name, scores in groups.items() if name != "known" and scores is not None}
    return {**histogram({name: scores for name, scores in groups.items() if scores is not None}), "roc": curves}


def plan(config: BenchConfig) -> Plan:
    """Train on the first half of the names; nothing is told the others."""
    source = load_source(config)
    split, home = base_new_split(source.classnames), home_of(source)
    tested = {item.label < len(split.base) for item in source.test if item.domain == home}
    if tested != {True, False}:
        raise ValueError(
            f"{source.name} has no test images of {'new' if True in tested else 'base'} names"
            + f" in {home}" * bool(home)
            + "; --protocol ood tests both halves of the names"
        )
    far, cards = far_parts(config, source, split.base, home)
    parts = (Part(source.name, source.test), *far)
    card = {
        "trained_on": f"the first {len(split.base)} of {len(source.classnames)} names of {source.name}",
        "tested_on": "near: base names against new ones in the domain of training; far: against other datasets; "
        "full-spectrum: base names in all domains against new ones; shift: base names in another domain, "
        "which must not be flagged",
        "unknown_names": len(split.new),
        "unknown_names_told": False,
        "far": cards,
        "detectors": dict(DETECTORS),
        "fitted_on": "ogen_images: the training images of the base names in their plain view, as the host sees them",
        "selection": "none: the last epoch is tested, and detectors have their default settings",
    }
    judge = OODJudge(parts, split.base, home)
    return Plan(
        config.protocol,
        source,
        split.base,
        (),
        home,
        parts,
        judge,
        (config.shots,),
        average="tasks",
        judge_sees_training=True,
        card=card,
    )


def far_parts(
    config: BenchConfig, source: Dataset, known: Sequence[str], home: str
) -> tuple[list[Part], list[dict[str, Any]]]:
    """Test images of other datasets without what the source knows, and their card.

    Of a dataset of no suite none are tested unless `targets` names some.

    Raises:
        ValueError: a target has only known classes, or is the source.
    """
    own_suite = source.name in (*list_datasets(), *COOP11)
    if config.targets == (NO_TARGETS,) or not (config.targets or own_suite):
        return [], []
    there = replace(config, test_domains=None)  # other things, not other domains
    parts, cards = [], []
    for name in targets_of(config, source):
        images = target_dataset(there, name, home).test
        kept, known_classes, drawings = without_known(images, name, source, known)
        if not len(kept):
            raise ValueError(f"--targets holds {name}, whose classes are all known; leave it out")
        parts.append(Part(name, kept))
        left_out = {"known_classes_left_out": known_classes, "drawings_of_the_source_left_out": drawings}
        cards.append({"dataset": name, "images": len(kept), "hash": kept.hash(), **left_out})
    return parts, cards


def without_known(
    images: ImageSet, name: str, source: Dataset, known: Sequence[str]
) -> tuple[ImageSet, list[str], int]:
    """The images of no known class, the class names that were left out, and how many drawings besides."""
    out = {n for n, held in zip(images.classnames, overlapping(images.classnames, known), strict=True) if held}
    kept = [item for item in images if images.classnames[item.label] not in out]
    bundled, count = list_datasets(), len(kept)
    if source.name in bundled and name in bundled:
        things = {_thing(item.key) for part in (source.train, source.test) for item in part}
        kept = [item for item in kept if _thing(item.key) not in things]
    return ImageSet(kept, images.classnames), sorted(out), count - len(kept)


def _thing(key: str) -> str:
    """What a bundled drawing shows, whichever icon set drew it."""
    return key.split("/", 1)[1]


def smoke(config: BenchConfig) -> dict[str, Any]:
    """One far dataset; those that are given are other things, so that there are fewer domains too."""
    far = config.targets or (other_things(config) if config.suite is None else ())
    return {**fewer_domains(replace(config, targets=())), "targets": far}


register(
    ProtocolInfo(
        "ood",
        "train on the first half of the names, tell images of no known class by detectors",
        plan,
        takes=("targets", NO_TARGETS),
        suite={"targets": (NO_TARGETS,)},  # near only: far are datasets beside one
        new_names=False,
        curves=False,
        smoke=smoke,
        shown=Shown({}, sections=("detectors", "detector tests", "skipped", "card"), listing="detectors"),
    )
)

"""base-to-new: half of the names are trained, both halves are tested in every domain.

Follows CoCoOp (Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557); the joint label space is besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ogenlib.bench.protocols.parts.controls import joined, said, without_images_by_zero_shot
from ogenlib.bench.protocols.parts.loading import load_source
from ogenlib.bench.protocols.parts.plan import Outcome, Part, Plan, Tested, home_of
from ogenlib.bench.protocols.registry import ProtocolInfo, Shown, register
from ogenlib.data import BaseNewSplit, base_new_split
from ogenlib.evaluate import scores as evaluate
from ogenlib.evaluate.stacking import thinned
from ogenlib.generators import stacking_curve
from ogenlib.hosts import Host
from ogenlib.results.published import published_halves
from ogenlib.train.batches import Bank
from ogenlib.utils.variant import ZERO_SHOT

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig


@dataclass(frozen=True)
class SplitJudge:
    """Scores one part whose classes are divided into base and new."""

    dataset: str
    split: BaseNewSplit
    home: str

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        scores = evaluate.base_to_new(host, tested.of(host, near=True)[0], self.split).scores
        return {k: scores[k] for k in ("base", "new", "H", "joint_H", "ausuc")}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        names, n_base = (*self.split.base, *self.split.new), len(self.split.base)
        bank = tested.of(host)[0].select(names)
        logits = evaluate.predict_logits(host, bank, names)
        near = evaluate.base_to_new(host, tested.of(host, near=True)[0], self.split)
        classes = [{"class": name, **row} for name, row in near.per_class.items()]
        if tested.competing is None:
            return self._scored(logits, bank, classes)
        zero_shot = evaluate.predict_logits(tested.competing.zero_shot, tested.features[0].select(names), names)
        ways = {"": logits, ZERO_SHOT: without_images_by_zero_shot(logits, zero_shot, n_base)}
        return joined(
            [
                self._scored(ways[control], bank, classes, control, constant)
                for control, constant in tested.competing.ways()
            ]
        )

    def _scored(
        self,
        logits: Tensor,
        bank: Bank,
        classes: list[dict[str, Any]],
        control: str = "",
        constant: float | None = None,
    ) -> Outcome:
        """What logits over all names score, of the host or of its control."""
        result = evaluate.split_scores(logits, bank, self.split, constant)
        here, of = {"dataset": self.dataset, "domain": self.home}, said(control, constant)
        curve = stacked(logits, bank, len(self.split.base), self.home, constant)
        return Outcome(
            [{"dataset": self.dataset, "domain": domain, **of, **scores} for domain, scores in result.domains.items()],
            [{**here, **pair} for pair in evaluate.confusions(result, self.home)],
            classes,
            stacking=[] if curve is None else [{**here, **of, **curve}],
        )


def stacked(logits: Tensor, bank: Bank, n_base: int, domain: str, constant: float | None) -> dict[str, Any] | None:
    """The curve of calibrated stacking in one domain; None where it has no images of one side.

    base, new: joint accuracies, few enough points to keep. zero, chosen: both at constant 0 and at `constant`.
    """
    inside = torch.tensor([one == domain for one in bank.domains])
    own, labels = logits[inside], bank.labels.cpu()[inside]
    if len({bool(label < n_base) for label in labels}) < 2:
        return None
    curve = stacking_curve(own, labels, n_base)
    kept = thinned(curve)
    chosen = {} if constant is None else {"chosen": list(curve.at(constant))}
    return {"base": kept.known.tolist(), "new": kept.unknown.tolist(), "zero": list(curve.at(0.0)), **chosen}


def plan(config: BenchConfig) -> Plan:
    """Train on the first half of the names, test both halves."""
    data = load_source(config)
    split, home = base_new_split(data.classnames), home_of(data)
    return Plan(
        config.protocol,
        data,
        split.base,
        split.new,
        home,
        (Part(data.name, data.test),),
        SplitJudge(data.name, split, home),
        (config.shots,),
        tests="home",
        pictured=(0, split.new),
    )


register(
    ProtocolInfo(
        "base-to-new",
        "train on the first half of the names, test both halves",
        plan,
        takes=("controls",),
        shown=Shown(both="{base} base and {new} new names", listing="halves", published=published_halves),
    )
)

"""base-to-new: half of the names are trained, both halves are tested in every domain.

Follows CoCoOp (Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557); the joint label space is besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ogenlib.bench.protocols.parts.loading import load_source
from ogenlib.bench.protocols.parts.plan import Outcome, Part, Plan, Tested, home_of
from ogenlib.bench.protocols.registry import ProtocolInfo, Shown, register
from ogenlib.data import BaseNewSplit, base_new_split
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import Host
from ogenlib.results.published import published_halves

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
        return {k: scores[k] for k in ("base", "new", "H", "joint_H")}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        result = evaluate.base_to_new(host, tested.of(host)[0], self.split)
        near = evaluate.base_to_new(host, tested.of(host, near=True)[0], self.split)
        here = {"dataset": self.dataset, "domain": self.home}
        return Outcome(
            [{"dataset": self.dataset, "domain": domain, **scores} for domain, scores in result.domains.items()],
            [{**here, **pair} for pair in evaluate.confusions(result, self.home)],
            [{"class": name, **row} for name, row in near.per_class.items()],
        )


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
        shown=Shown(both="{base} base and {new} new names", listing="halves", published=published_halves),
    )
)

"""few-shot: train on all names with few images of each, for several numbers of images; test the same names.

Follows CoOp (Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134): 1, 2, 4, 8 and 16 images of a class, drawn as
its code draws them. There are no names without images, so there is one label space and no new, H or joint number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ogenlib.bench.protocols.parts.loading import load_source
from ogenlib.bench.protocols.parts.plan import Part, Plan, home_of
from ogenlib.bench.protocols.parts.sides import SidesJudge
from ogenlib.bench.protocols.registry import ProtocolInfo, Shown, fewer_domains, register

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig


def plan(config: BenchConfig) -> Plan:
    """Train on all names of `config.dataset` with each number of shots."""
    source = load_source(config)
    home, known = home_of(source), source.classnames
    parts = (Part(source.name, source.test),)
    judge = SidesJudge(parts, known, len(known), (), (), home)
    card = {
        "trained_on": f"all {len(known)} names of {source.name}, {', '.join(map(str, config.shots_list))} images each",
        "tested_on": "base: all test images among all names; no names are without training images",
    }
    return Plan(
        config.protocol, source, known, (), home, parts, judge, config.shots_list, shots_in_rows=True, card=card
    )


def check(config: BenchConfig) -> None:
    """ValueError for numbers of images that are none, or named twice."""
    shots = config.shots_list
    if not shots or min(shots) < 1 or len(set(shots)) != len(shots):
        raise ValueError(f"shots_list={list(shots)}: name numbers of 1 or more, each once")


def smoke(config: BenchConfig) -> dict[str, Any]:
    """The first two small numbers of images."""
    few = tuple(shots for shots in config.shots_list if shots <= 4)[:2]
    return {**fewer_domains(config), "shots_list": few or config.shots_list}


register(
    ProtocolInfo(
        "few-shot",
        "train on all names with several numbers of images, test the same names",
        plan,
        takes=("shots_list",),
        new_names=False,
        shots=lambda config: config.shots_list,
        no_shots="few-shot trains with each number of images in --shots-list",
        smoke=smoke,
        check=check,
        shown=Shown({"base": "the test images"}, base="accuracy on all test images, choosing among all names", new=""),
    )
)

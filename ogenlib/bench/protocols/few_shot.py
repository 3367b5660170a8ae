"""few-shot: train on all names with few images of each, for several numbers of images; test the same names.

Follows CoOp (Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134): 1, 2, 4, 8 and 16 images of a class, drawn as
its code draws them. There are no names without images, so there is one label space and no new, H or joint number.
"""

from __future__ import annotations

from ogenlib.bench.config import BenchConfig
from ogenlib.bench.protocols.loading import load_source
from ogenlib.bench.protocols.plan import Part, Plan, home_of
from ogenlib.bench.protocols.sides import SidesJudge


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

"""States of one model mixed: WiSE-FT, soups, Fisher merging, and mixtures by image."""

from ogenlib.merge.fisher import diagonal_fisher
from ogenlib.merge.states import (
    GreedySoup,
    alpha_sweep,
    best_alpha,
    check_alpha,
    check_states,
    fisher_merge,
    greedy_soup,
    interpolate,
    soup,
)
from ogenlib.merge.vrf import VRF
from ogenlib.merge.wise import interpolated, snapshot_of, start_state, wise_ft

__all__ = [
    "VRF",
    "GreedySoup",
    "alpha_sweep",
    "best_alpha",
    "check_alpha",
    "check_states",
    "diagonal_fisher",
    "fisher_merge",
    "greedy_soup",
    "interpolate",
    "interpolated",
    "snapshot_of",
    "soup",
    "start_state",
    "wise_ft",
]

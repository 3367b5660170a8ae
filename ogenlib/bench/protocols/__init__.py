"""What each protocol trains and tests; `ogenlib.bench.runner` runs them."""

from __future__ import annotations

from collections.abc import Callable

from ogenlib.bench.config import BenchConfig
from ogenlib.bench.protocols import (
    base_to_new,
    cross_dataset,
    domain_generalization,
    domain_shift,
    few_shot,
    ood,
    retrieval,
)
from ogenlib.bench.protocols.plan import Judge, Outcome, Part, Plan, Tested, domains_of

__all__ = ["PLANS", "Judge", "Outcome", "Part", "Plan", "Tested", "domains_of", "plan"]

PLANS: dict[str, Callable[[BenchConfig], Plan]] = {
    "base-to-new": base_to_new.plan,
    "cross-dataset": cross_dataset.plan,
    "domain-generalization": domain_generalization.plan,
    "domain-shift": domain_shift.plan,
    "few-shot": few_shot.plan,
    "ood": ood.plan,
    "retrieval": retrieval.plan,
}
"""For every protocol the function that plans it."""


def plan(config: BenchConfig) -> Plan:
    """What the protocol of `config` trains and tests, with its datasets loaded."""
    return PLANS[config.protocol](config)

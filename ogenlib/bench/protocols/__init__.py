"""What each protocol trains and tests, a file a protocol; `ogenlib.bench.runner` runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.bench.protocols.parts.plan import Judge, Outcome, Part, Plan, Tested, domains_of
from ogenlib.bench.protocols.registry import PROTOCOLS, ProtocolInfo, Shown, list_protocols, register

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

__all__ = [
    "PROTOCOLS", "Judge", "Outcome", "Part", "Plan", "ProtocolInfo", "Shown", "Tested", "domains_of", "list_protocols",
    "plan", "register",
]  # fmt: skip


def plan(config: BenchConfig) -> Plan:
    """What the protocol of `config` trains and tests, with its datasets loaded."""
    return PROTOCOLS[config.protocol].plan(config)

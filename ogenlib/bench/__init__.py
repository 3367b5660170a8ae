"""Benchmarks: what is compared, how it is run, and the protocols that say what is measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ogenlib.bench.config import PROTOCOLS, BenchConfig

if TYPE_CHECKING:
    from ogenlib.bench.runner import run_bench
    from ogenlib.bench.suite import run_suite

__all__ = ["PROTOCOLS", "BenchConfig", "run_bench", "run_suite"]


if not TYPE_CHECKING:  # a report asks for protocols, and is written by what runs them

    def __getattr__(name: str) -> Any:
        """What runs a benchmark, imported now."""
        homes = {"run_bench": "runner", "run_suite": "suite"}
        if name in homes:
            return getattr(import_module(f"{__name__}.{homes[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

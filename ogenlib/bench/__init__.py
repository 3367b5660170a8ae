"""Benchmarks: what is compared, how it is run, and the protocols that say what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib.bench.config import PROTOCOLS, BenchConfig
    from ogenlib.bench.runner import run_bench
    from ogenlib.bench.suite import run_suite

__all__ = ["PROTOCOLS", "BenchConfig", "run_bench", "run_suite"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = attach(
        __name__, {"config": ("PROTOCOLS", "BenchConfig"), "runner": ("run_bench",), "suite": ("run_suite",)}
    )

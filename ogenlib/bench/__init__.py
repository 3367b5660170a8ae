"""Benchmarks: what is compared, how it is run, and the protocols that say what is measured."""

from ogenlib.bench.config import PROTOCOLS, BenchConfig
from ogenlib.bench.runner import run_bench
from ogenlib.bench.suite import run_suite

__all__ = ["PROTOCOLS", "BenchConfig", "run_bench", "run_suite"]

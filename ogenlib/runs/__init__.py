"""Saved runs: written, opened again, and asked for names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib.runs.saved import Classifier, Prediction, load_run, read_run

__all__ = ["Classifier", "Prediction", "load_run", "read_run"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = attach(__name__, {"saved": ("Classifier", "Prediction", "load_run", "read_run")})

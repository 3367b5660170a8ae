"""Runs: trained from settings, saved, opened again, and asked for names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib.runs.assembly import assemble
    from ogenlib.runs.config import RunConfig
    from ogenlib.runs.saved import Classifier, Prediction, load_run, read_run
    from ogenlib.runs.training import Trained, train_run

__all__ = ["Classifier", "Prediction", "RunConfig", "Trained", "assemble", "load_run", "read_run", "train_run"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "assembly": ("assemble",),
            "config": ("RunConfig",),
            "saved": ("Classifier", "Prediction", "load_run", "read_run"),
            "training": ("Trained", "train_run"),
        },
    )

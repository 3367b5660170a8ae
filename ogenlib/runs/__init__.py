"""Saved runs: written, opened again, and asked for names."""

from ogenlib.runs.saved import Classifier, Prediction, load_run, read_run

__all__ = ["Classifier", "Prediction", "load_run", "read_run"]

"""One training loop for every host."""

from ogenlib.train.loop import History, TrainConfig, fit, learning_rate, step_rate

__all__ = ["History", "TrainConfig", "fit", "learning_rate", "step_rate"]

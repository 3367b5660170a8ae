"""One training loop for every host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib.train.config import TrainConfig
    from ogenlib.train.loop import History, fit, learning_rate, step_rate

__all__ = ["History", "TrainConfig", "fit", "learning_rate", "step_rate"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = attach(
        __name__, {"config": ("TrainConfig",), "loop": ("History", "fit", "learning_rate", "step_rate")}
    )

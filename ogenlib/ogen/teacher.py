"""The teacher that OGEN's settings name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ogenlib.distill import EMA, AdaptiveLocalMeanTeacher, MeanTeacher, Teacher
from ogenlib.ogen.config import OGENConfig


def start_teacher(config: OGENConfig, tensors: Mapping[str, Tensor], epochs: int) -> Teacher | None:
    """A teacher of `tensors`, over steps (``ema``) or epochs (``mean``, ``almt``); None where none is asked for."""
    if config.teacher == "ema":
        return EMA(tensors, decay=config.decay)
    if config.teacher == "mean":
        return MeanTeacher(tensors, decay=config.decay)
    if config.teacher == "almt":
        return AdaptiveLocalMeanTeacher(tensors, epochs, config.m_min, config.m_max, config.decay)
    return None

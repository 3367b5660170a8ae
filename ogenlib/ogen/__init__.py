"""OGEN around any host: synthesized features of classes without images, and self-distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib.ogen.config import OGENConfig, ogen_config
    from ogenlib.ogen.generator_file import load_generator, save_generator
    from ogenlib.ogen.wrapper import OGEN

__all__ = ["OGEN", "OGENConfig", "load_generator", "ogen_config", "save_generator"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "config": ("OGENConfig", "ogen_config"),
            "generator_file": ("load_generator", "save_generator"),
            "wrapper": ("OGEN",),
        },
    )

"""OGEN around any host: synthesized features of classes without images, and self-distillation."""

from ogenlib.ogen.config import OGENConfig, ogen_config
from ogenlib.ogen.generator_file import load_generator, save_generator
from ogenlib.ogen.wrapper import OGEN

__all__ = ["OGEN", "OGENConfig", "load_generator", "ogen_config", "save_generator"]

"""Class-conditional feature generators: image features for a class from its name's embedding.

Tensors in, modules out. Nothing here knows CLIP or writes files: `state()` and `from_state()` hand over tensors and
JSON-able settings, for safetensors or anything else.
"""

from __future__ import annotations

from ogenlib.generators.base import ClassConditionalGenerator, list_variants
from ogenlib.generators.joint import JointGenerator
from ogenlib.generators.joint_shift import JointShiftGenerator
from ogenlib.generators.known import KnownClasses
from ogenlib.generators.neighbours import class_neighbours
from ogenlib.generators.per_class import PerClassGenerator
from ogenlib.generators.released import ReleasedGenerator
from ogenlib.generators.shift import ShiftGenerator
from ogenlib.generators.text_only import TextOnlyGenerator
from ogenlib.generators.train import fit_generator

__all__ = [
    "ClassConditionalGenerator",
    "JointGenerator",
    "JointShiftGenerator",
    "KnownClasses",
    "PerClassGenerator",
    "ReleasedGenerator",
    "ShiftGenerator",
    "TextOnlyGenerator",
    "class_neighbours",
    "fit_generator",
    "list_variants",
]

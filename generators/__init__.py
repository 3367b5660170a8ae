"""Class-conditional feature generators: image features for a class from its name's embedding.

Tensors in, modules out. Nothing here knows CLIP or writes files: `state()` and `from_state()` hand over tensors and
JSON-able settings, for safetensors or anything else.
"""

from __future__ import annotations

from ogenlib.generators.base import ClassConditionalGenerator, list_variants
from ogenlib.generators.density import ClassDensities, Discriminant, fit_densities
from ogenlib.generators.episodes import EvidenceSettings, choose_evidence
from ogenlib.generators.joint import JointGenerator
from ogenlib.generators.joint_shift import JointShiftGenerator
from ogenlib.generators.known import KnownClasses
from ogenlib.generators.mapped import MappedGenerator
from ogenlib.generators.mean_map import MeanMap, fit_mean_map
from ogenlib.generators.metrics import (
    class_cosine,
    class_mmd,
    density_coverage,
    frechet_distance,
    frechet_gaussian,
    measure_synthesized,
    median_distance,
    mmd,
    nearest_mean_accuracy,
    ridge_accuracy,
    zero_shot_accuracy,
)
from ogenlib.generators.neighbours import class_neighbours
from ogenlib.generators.per_class import PerClassGenerator
from ogenlib.generators.released import ReleasedGenerator
from ogenlib.generators.shift import ShiftGenerator
from ogenlib.generators.stacking import StackingCurve, ausuc, gate_auroc, stacking_curve
from ogenlib.generators.text_only import TextOnlyGenerator
from ogenlib.generators.train import fit_generator, regression_loss, start_generator

__all__ = [
    "ClassConditionalGenerator",
    "ClassDensities",
    "Discriminant",
    "EvidenceSettings",
    "JointGenerator",
    "JointShiftGenerator",
    "KnownClasses",
    "MappedGenerator",
    "MeanMap",
    "PerClassGenerator",
    "ReleasedGenerator",
    "ShiftGenerator",
    "StackingCurve",
    "TextOnlyGenerator",
    "ausuc",
    "choose_evidence",
    "class_cosine",
    "class_mmd",
    "class_neighbours",
    "density_coverage",
    "fit_densities",
    "fit_generator",
    "fit_mean_map",
    "frechet_distance",
    "frechet_gaussian",
    "gate_auroc",
    "list_variants",
    "measure_synthesized",
    "median_distance",
    "mmd",
    "nearest_mean_accuracy",
    "regression_loss",
    "ridge_accuracy",
    "stacking_curve",
    "start_generator",
    "zero_shot_accuracy",
]

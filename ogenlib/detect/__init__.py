"""Detectors for inputs of no known class, as pytorch-ood detectors."""

from __future__ import annotations

from ogenlib.detect.encoder import ImageEncoder, PatchEncoder
from ogenlib.detect.gl_mcm import GLMCM
from ogenlib.detect.logits import OGENLogitsDetector
from ogenlib.detect.neg_label import NegLabel, mine_negatives
from ogenlib.detect.ogen_detector import OGENDetector
from ogenlib.detect.vocabulary import read_vocabulary, wordnet_nouns

__all__ = [
    "GLMCM", "ImageEncoder", "NegLabel", "OGENDetector", "OGENLogitsDetector", "PatchEncoder", "mine_negatives",
    "read_vocabulary", "wordnet_nouns",
]  # fmt: skip

"""ogenlib: fine-tune CLIP-like models without losing what they already know."""

from ogenlib import evaluate, hosts
from ogenlib.data import FeatureBank, base_new_split, few_shot, load_dataset
from ogenlib.runs import Classifier, load_run
from ogenlib.towers import EmbeddingTable, load_backbone
from ogenlib.train import TrainConfig, fit

__version__ = "0.1.0"

__all__ = [
    "Classifier", "EmbeddingTable", "FeatureBank", "TrainConfig", "__version__", "base_new_split", "evaluate", "few_shot", "fit",
    "hosts", "load_backbone", "load_dataset", "load_run",
]  # fmt: skip

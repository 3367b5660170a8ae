"""ogenlib: fine-tune CLIP-like models without losing what they already know."""

from ogenlib import evaluate, hosts
from ogenlib.data import FeatureBank, PixelBank, base_new_split, few_shot, few_shot_train_val, load_dataset
from ogenlib.generator_io import load_generator, save_generator
from ogenlib.ogen import OGEN
from ogenlib.ogen_config import OGENConfig
from ogenlib.runs import Classifier, load_run
from ogenlib.towers import EmbeddingTable, load_backbone
from ogenlib.train import TrainConfig, fit

__version__ = "0.1.0"

__all__ = [
    "OGEN", "Classifier", "EmbeddingTable", "FeatureBank", "OGENConfig", "PixelBank", "TrainConfig", "__version__",
    "base_new_split", "evaluate", "few_shot", "few_shot_train_val", "fit", "hosts", "load_backbone", "load_dataset",
    "load_generator", "load_run", "save_generator",
]  # fmt: skip

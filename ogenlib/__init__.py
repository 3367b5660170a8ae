"""ogenlib: fine-tune CLIP-like models without losing what they already know."""

from ogenlib import evaluate, hosts
from ogenlib.data import FeatureBank, PixelBank, base_new_split, few_shot, few_shot_train_val, load_dataset
from ogenlib.export import export_head, export_open_clip, to_linear_head
from ogenlib.generator_io import load_generator, save_generator
from ogenlib.ogen import OGEN
from ogenlib.ogen_config import OGENConfig
from ogenlib.onnx_graph import export_onnx
from ogenlib.runs import Classifier, load_run
from ogenlib.towers import EmbeddingTable, load_backbone
from ogenlib.train import TrainConfig, fit
from ogenlib.words import nearest_words

__version__ = "0.1.0"

__all__ = [
    "OGEN", "Classifier", "EmbeddingTable", "FeatureBank", "OGENConfig", "PixelBank", "TrainConfig", "__version__",
    "base_new_split", "evaluate", "export_head", "export_onnx", "export_open_clip", "few_shot", "few_shot_train_val",
    "fit", "hosts", "load_backbone", "load_dataset", "load_generator", "load_run", "nearest_words", "save_generator",
    "to_linear_head",
]  # fmt: skip

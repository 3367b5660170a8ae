"""ogenlib: fine-tune CLIP-like models without losing what they already know.

Nothing is imported before it is used: ``import ogenlib`` and ``ogen --help`` do not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ogenlib.utils.lazy import attach

if TYPE_CHECKING:
    from ogenlib import evaluate, hosts
    from ogenlib.analysis import nearest_words
    from ogenlib.data import FeatureBank, PixelBank, base_new_split, few_shot, few_shot_train_val, load_dataset
    from ogenlib.export import export_head, export_onnx, export_open_clip, to_linear_head
    from ogenlib.ogen import OGEN, OGENConfig, load_generator, save_generator
    from ogenlib.runs import Classifier, load_run
    from ogenlib.towers import EmbeddingTable, load_backbone
    from ogenlib.train import TrainConfig, fit

__version__ = "0.1.0"

__all__ = [
    "OGEN", "Classifier", "EmbeddingTable", "FeatureBank", "OGENConfig", "PixelBank", "TrainConfig", "__version__",
    "base_new_split", "evaluate", "export_head", "export_onnx", "export_open_clip", "few_shot", "few_shot_train_val",
    "fit", "hosts", "load_backbone", "load_dataset", "load_generator", "load_run", "nearest_words", "save_generator",
    "to_linear_head",
]  # fmt: skip

if not TYPE_CHECKING:  # the same names for when the program runs; a type checker must go on telling what is not there
    __getattr__, __dir__ = attach(
        __name__,
        {
            "analysis": ("nearest_words",),
            "data": ("FeatureBank", "PixelBank", "base_new_split", "few_shot", "few_shot_train_val", "load_dataset"),
            "export": ("export_head", "export_onnx", "export_open_clip", "to_linear_head"),
            "ogen": ("OGEN", "OGENConfig", "load_generator", "save_generator"),
            "runs": ("Classifier", "load_run"),
            "towers": ("EmbeddingTable", "load_backbone"),
            "train": ("TrainConfig", "fit"),
        },
    )

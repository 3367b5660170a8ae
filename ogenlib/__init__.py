"""ogenlib: fine-tune CLIP-like models without losing what they already know.

Nothing is imported before it is used: ``import ogenlib`` and ``ogen --help`` do not wait for torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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

# The same names as above, for when the program runs.
_HOMES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "analysis": ("nearest_words",),
    "data": ("FeatureBank", "PixelBank", "base_new_split", "few_shot", "few_shot_train_val", "load_dataset"),
    "export": ("export_head", "export_onnx", "export_open_clip", "to_linear_head"),
    "ogen": ("OGEN", "OGENConfig", "load_generator", "save_generator"),
    "runs": ("Classifier", "load_run"),
    "towers": ("EmbeddingTable", "load_backbone"),
    "train": ("TrainConfig", "fit"),
})  # fmt: skip


if not TYPE_CHECKING:  # a type checker must go on telling names that are not there

    def __getattr__(name: str) -> Any:
        """A public name, or a module of the package, imported now; later uses find it without this function."""
        for module, names in _HOMES.items():
            if name in names:
                globals()[name] = value = getattr(import_module(f"{__name__}.{module}"), name)
                return value
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

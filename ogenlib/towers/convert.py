"""OpenAI's CLIP archives -> a folder that open_clip opens.

OpenAI ships CLIP as TorchScript, which open_clip 4 no longer reads. The folder written here holds
`open_clip_config.json` and `open_clip_model.safetensors`, with quick-GELU recorded in both.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor

from ogenlib.towers.source import CONFIG_FILE, WEIGHTS_FILE, is_torchscript
from ogenlib.utils.files import atomic_folder, refuse_existing

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_NEEDED = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale")
_HEAD_WIDTH = 64  # every CLIP that OpenAI released has 64-wide heads, in both towers


def convert_openai(archive: Path | str, out: Path | str, name: str | None = None) -> Path:
    """Convert an OpenAI CLIP archive (TorchScript, or a plain state dict saved by torch) to a folder.

    Args:
        out: the folder to write; must not exist, or be empty. It appears complete or not at all.
        name: kept in the configuration for people to read; the archive's own name by default.

    Returns:
        `out`; open it with `load_backbone(f"local-dir:{out}")` or `open_clip.create_model`.

    Raises:
        FileNotFoundError: there is no archive.
        FileExistsError: `out` is a file or a folder with something in it.
        ValueError: the archive is not OpenAI's CLIP.
    """
    archive, out = Path(archive), Path(out)
    if not archive.is_file():
        raise FileNotFoundError(f"archive {archive} does not exist")
    refuse_existing(out)
    weights = _read(archive)
    document = {
        "model_cfg": infer_config(weights),
        "preprocess_cfg": {
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
        "converted": {"from": archive.name, "name": name or archive.stem},
    }
    with atomic_folder(out) as work:
        (work / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        save_file(weights, work / WEIGHTS_FILE, metadata={"format": "pt", "quick_gelu": "true"})
        _open_once(work, archive)
    return out


def infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """open_clip's `model_cfg` from the shapes of OpenAI's state dict, vision transformer or ResNet.

    Raises:
        ValueError: a tensor that every OpenAI CLIP has is missing.
    """
    missing = [key for key in _NEEDED if key not in weights]
    if missing or not any(key.startswith("visual.") for key in weights):
        raise ValueError(f"this is not OpenAI's CLIP: {', '.join(missing) or 'visual.*'} missing; expected an archive "
                         "such as ViT-B-32.pt or RN50.pt")  # fmt: skip
    width = weights["ln_final.weight"].shape[0]
    return {
        "embed_dim": weights["text_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": _vision(weights),
        "text_cfg": {
            "context_length": weights["positional_embedding"].shape[0],
            "vocab_size": weights["token_embedding.weight"].shape[0],
            "width": width,
            "heads": width // _HEAD_WIDTH,
            "layers": _count(weights, "transformer.resblocks.", 2),
        },
    }


def _vision(weights: dict[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in weights:
        kernel = weights["visual.conv1.weight"]
        patch = kernel.shape[-1]
        return {
            "image_size": patch * _grid(weights["visual.positional_embedding"]),
            "layers": _count(weights, "visual.transformer.resblocks.", 3),
            "width": kernel.shape[0],
            "head_width": _HEAD_WIDTH,
            "patch_size": patch,
        }
    if "visual.attnpool.positional_embedding" not in weights or "visual.layer1.0.conv1.weight" not in weights:
        raise ValueError("this is not OpenAI's CLIP: its image tower is neither a vision transformer nor a ResNet")
    return {
        # The ResNets halve the image five times before their attention pooling.
        "image_size": 32 * _grid(weights["visual.attnpool.positional_embedding"]),
        "layers": [_count(weights, f"visual.layer{stage}.", 2) for stage in (1, 2, 3, 4)],
        "width": weights["visual.layer1.0.conv1.weight"].shape[0],
        "head_width": _HEAD_WIDTH,
        "patch_size": None,
    }


def _read(archive: Path) -> dict[str, Tensor]:
    """The archive's tensors, each with memory of its own."""
    document: Any
    if is_torchscript(archive):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            document = torch.jit.load(str(archive), map_location="cpu").state_dict()
    else:
        try:
            document = torch.load(archive, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{archive} is neither a TorchScript archive nor a torch state dict ({type(error).__name__}); "
                "expected OpenAI's ViT-B-32.pt, RN50.pt, ..."
            ) from error
    if isinstance(document, dict) and isinstance(document.get("state_dict"), dict):
        document = document["state_dict"]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise ValueError(f"{archive} does not hold a state dict (names and tensors)")
    plain = {key.removeprefix("module."): value for key, value in document.items()}
    return {key: value.detach().contiguous().clone() for key, value in plain.items() if key not in _NOT_WEIGHTS}


def _open_once(folder: Path, archive: Path) -> None:
    """Every tensor must find its place before the folder gets its name."""
    try:
        open_clip.create_model(f"local-dir:{folder}")
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{archive} looks like OpenAI's CLIP but does not fit open_clip's: {error}") from error


def _count(weights: dict[str, Tensor], start: str, part: int) -> int:
    return len({key.split(".")[part] for key in weights if key.startswith(start)})


def _grid(positions: Tensor) -> int:
    return round((positions.shape[0] - 1) ** 0.5)

"""OpenAI's CLIP archives -> a folder that open_clip opens.

OpenAI ships CLIP as TorchScript, which open_clip 4 no longer reads. The folder written here holds
`open_clip_config.json` and `open_clip_model.safetensors`, with quick-GELU recorded in both. Nothing in the archive is
run: its tensors are read as they lie there.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from ogenlib.towers.backbone import load_backbone
from ogenlib.towers.checkpoint import read_state_dict
from ogenlib.towers.source import CONFIG_FILE, WEIGHTS_FILE
from ogenlib.utils.documents import write_document
from ogenlib.utils.files import atomic_folder, refuse_existing
from ogenlib.utils.tensors import write_tensors

# Numbers of the model as tensors, and the mask of its text tower, which open_clip makes itself.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
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
        ValueError: the archive is not OpenAI's CLIP, is damaged, or needs to be run to be read.
    """
    archive, out = Path(archive), Path(out)
    if not archive.is_file():
        raise FileNotFoundError(f"archive {archive} does not exist")
    refuse_existing(out)
    weights = _read(archive)
    try:
        config = infer_config(weights)
    except ValueError as error:
        raise ValueError(f"{archive}: {error}") from error
    document = {
        "model_cfg": config,
        "preprocess_cfg": {
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
        "converted": {"from": archive.name, "name": name or archive.stem},
    }
    with atomic_folder(out) as work:
        write_document(work / CONFIG_FILE, document)
        write_tensors(work / WEIGHTS_FILE, weights, metadata={"format": "pt", "quick_gelu": "true"})
        _open_once(work, archive)
    return out


def infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """open_clip's `model_cfg` from the shapes of OpenAI's state dict, vision transformer or ResNet.

    Raises:
        ValueError: a tensor that every OpenAI CLIP has is missing, or has a shape that none has.
    """
    missing = [key for key in _NEEDED if key not in weights]
    if missing or not any(key.startswith("visual.") for key in weights):
        raise ValueError(
            f"this is not OpenAI's CLIP: {', '.join(missing) or 'visual.*'} missing; expected an archive "
            "such as ViT-B-32.pt or RN50.pt"
        )
    (width,) = _shape(weights, "ln_final.weight", 1)
    return {
        "embed_dim": _shape(weights, "text_projection", 2)[1],
        "quick_gelu": True,
        "vision_cfg": _vision(weights),
        "text_cfg": {
            "context_length": _shape(weights, "positional_embedding", 2)[0],
            "vocab_size": _shape(weights, "token_embedding.weight", 2)[0],
            "width": width,
            "heads": _heads(width, "ln_final.weight"),
            "layers": _count(weights, "transformer.resblocks."),
        },
    }


def _vision(weights: dict[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in weights:
        width, _, _, patch = _shape(weights, "visual.conv1.weight", 4)
        _heads(width, "visual.conv1.weight")
        return {
            "image_size": patch * _grid(weights, "visual.positional_embedding"),
            "layers": _count(weights, "visual.transformer.resblocks."),
            "width": width,
            "head_width": _HEAD_WIDTH,
            "patch_size": patch,
        }
    if "visual.attnpool.positional_embedding" not in weights or "visual.layer1.0.conv1.weight" not in weights:
        raise ValueError("this is not OpenAI's CLIP: its image tower is neither a vision transformer nor a ResNet")
    return {
        # The ResNets halve the image five times before their attention pooling.
        "image_size": 32 * _grid(weights, "visual.attnpool.positional_embedding"),
        "layers": [_count(weights, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "width": _shape(weights, "visual.layer1.0.conv1.weight", 4)[0],
        "head_width": _HEAD_WIDTH,
        "patch_size": None,
    }


def _read(archive: Path) -> dict[str, Tensor]:
    state = read_state_dict(archive, "expected OpenAI's ViT-B-32.pt, RN50.pt, ...")
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    weights = {key: value for key, value in plain.items() if key.split(".")[-1] not in _NOT_WEIGHTS}
    for key, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{archive}: the weights {key!r} hold numbers that are not finite; fetch the archive anew")
    return weights


def _open_once(folder: Path, archive: Path) -> None:
    """Every tensor must find its place before the folder gets its name."""
    try:
        load_backbone(f"local-dir:{folder}", download=False)
    except ValueError as error:
        raise ValueError(f"{archive} looks like OpenAI's CLIP but does not fit open_clip's: {error}") from error


def _shape(weights: dict[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor of OpenAI's CLIP, whose rank is known and whose sizes are not zero."""
    if key not in weights or weights[key].ndim != rank or not weights[key].numel():
        shape = tuple(weights[key].shape) if key in weights else "missing"
        raise ValueError(f"this is not OpenAI's CLIP: {key} is {shape}, expected {rank} sizes above 0")
    return tuple(weights[key].shape)


def _heads(width: int, key: str) -> int:
    if width % _HEAD_WIDTH:
        raise ValueError(f"this is not OpenAI's CLIP: {key} is {width} wide, expected a multiple of {_HEAD_WIDTH}")
    return width // _HEAD_WIDTH


def _count(weights: dict[str, Tensor], start: str) -> int:
    """How many numbered blocks there are whose names begin with `start`."""
    blocks = {key.removeprefix(start).split(".")[0] for key in weights if key.startswith(start)}
    if not blocks:
        raise ValueError(f"this is not OpenAI's CLIP: {start}* missing")
    return len(blocks)


def _grid(weights: dict[str, Tensor], key: str) -> int:
    """Patches on a side of the square image; one position more is the class token's."""
    positions = _shape(weights, key, 2)[0]
    side = isqrt(positions - 1)
    if not side or side**2 != positions - 1:
        raise ValueError(f"this is not OpenAI's CLIP: {key} has {positions} rows, expected those of a square and one")
    return side

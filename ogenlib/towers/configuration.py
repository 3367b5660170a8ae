"""open_clip's model configuration, checked before anything is built from it.

A configuration comes with a model, from whoever made that. open_clip hands it on as arguments, of which some bring code
or files from elsewhere; this module lets through what describes a model, and names what it does not.

Notation: none; nothing here knows tensors.
"""

from __future__ import annotations

import inspect
import reprlib
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import open_clip
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg

from ogenlib.utils.documents import DIGEST, conform, read_json, unsealed

_WHAT = "an open_clip configuration"
_FIX = "name the folder of a model that open_clip or ogenlib wrote"
_PARTS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
# What changes how texts become tokens. All else would go to transformers' loader, which takes code and files.
_TOKENIZER = {"clean": str, "strip_sep_token": bool, "language": str, "reduction_mask": str}


def read_configuration(path: Path) -> dict[str, Any]:
    """``{"model_cfg": ..., "preprocess_cfg": ...}`` of a file, checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file and the key that is no part of a model's description.
    """
    document = read_json(path, what=_WHAT, fix=_FIX)
    if isinstance(document, dict) and DIGEST in document:  # one that ogenlib wrote
        document = unsealed(document, path, what=_WHAT, fix=_FIX)
    if not isinstance(document, dict) or not isinstance(document.get("model_cfg"), dict):
        raise ValueError(f"{path} holds no model_cfg: expected an open_clip configuration; {_FIX}")
    check_model(document["model_cfg"], path)
    preprocess = document.get("preprocess_cfg") or {}
    _check_preprocessing(preprocess, path)
    return {"model_cfg": document["model_cfg"], "preprocess_cfg": preprocess}


def check_model(config: dict[str, Any], where: Path | str) -> None:
    """Keys and types of a `model_cfg`, and what it would load.

    Args:
        where: the file, or whatever it came from, for messages.

    Raises:
        ValueError: names `where` and the key.
    """
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(config.get(part), dict):
            raise ValueError(f"{where}: model_cfg has no {part}; {_FIX}")
    hints = {**_hints_of_models(), **dict.fromkeys(_PARTS, dict), "custom_text": bool}
    _check_types(config, hints, where, "model_cfg")
    if not isinstance(config.get("embed_dim"), int):
        raise ValueError(f"{where}: model_cfg has no embed_dim; {_FIX}")
    for part, kind in _PARTS.items():
        _check_types(config.get(part) or {}, get_type_hints(kind), where, part)
    text, vision = config["text_cfg"], config["vision_cfg"]
    for key, value in (text.get("tokenizer_kwargs") or {}).items():
        place = f"{where}: text_cfg.tokenizer_kwargs has {key!r}: {reprlib.repr(value)}"
        if key not in _TOKENIZER:
            raise ValueError(f"{place}, which may bring code or files; accepted: {', '.join(_TOKENIZER)}")
        if not isinstance(value, _TOKENIZER[key]):
            raise ValueError(f"{place}, expected a {_TOKENIZER[key].__name__}")
    timm = vision.get("timm_model_name") or ""
    if ":" in timm or "/" in timm:
        raise ValueError(
            f"{where}: vision_cfg.timm_model_name is {timm!r}, which loads a model from elsewhere; "
            "accepted: the name of an architecture in timm"
        )


def _check_preprocessing(settings: Any, path: Path) -> None:
    """open_clip leaves out the keys that it does not know, and asserts the rest when images come."""
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: preprocess_cfg is {reprlib.repr(settings)}, not an object; {_FIX}")
    hints = get_type_hints(PreprocessCfg)
    accepted = {
        "mode": ("RGB",),
        "interpolation": ("bicubic", "bilinear", "random"),
        "resize_mode": ("shortest", "longest", "squash"),
    }
    for key, value in settings.items():
        if key not in hints or value is None:
            continue
        conform(value, hints[key], path, f"an open_clip configuration (preprocess_cfg.{key})", _FIX)
        if value not in accepted.get(key, (value,)):
            raise ValueError(f"{path}: preprocess_cfg.{key} is {reprlib.repr(value)}, accepted: {accepted[key]}")
        if key in ("mean", "std") and (len(value) != 3 or (key == "std" and not all(value))):
            raise ValueError(
                f"{path}: preprocess_cfg.{key} is {reprlib.repr(value)}, expected three numbers"
                f"{' above 0' if key == 'std' else ''}; {_FIX}"
            )


def _check_types(config: dict[str, Any], hints: dict[str, Any], where: Path | str, part: str) -> None:
    for key, value in config.items():
        if key not in hints:
            raise ValueError(
                f"{where}: {part} has the unknown key {key[:80]!r}: "
                f"open_clip {open_clip.__version__} builds nothing by it; {_FIX}"
            )
        if value is None:  # in place of a default; of a ResNet's patch_size, for one
            continue
        try:
            msgspec.convert(value, hints[key], strict=True)
        except msgspec.ValidationError as error:
            raise ValueError(f"{where}: {part}.{key} is {reprlib.repr(value)} ({error}); {_FIX}") from error


def _hints_of_models() -> dict[str, Any]:
    """What the installed open_clip's model classes take, by name."""
    hints_of: dict[str, Any] = {}
    for kind in (open_clip.CoCa, open_clip.CustomTextCLIP, open_clip.CLIP):
        hints = get_type_hints(kind.__init__)
        hints_of |= {name: hints.get(name, Any) for name in inspect.signature(kind).parameters}
    hints_of.pop("cast_dtype")
    return hints_of

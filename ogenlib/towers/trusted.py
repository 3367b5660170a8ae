"""Hugging Face files that a model configuration refers to, looked at before transformers opens them.

transformers runs Python files that an ``"auto_map"`` names, in the folder or on a hub, and may ask on the terminal
whether it should. Nothing here asks: a model that brings code is refused.
"""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import Any

from open_clip.hf_configs import arch_dict

from ogenlib.towers.hub import not_here
from ogenlib.utils.documents import read_json

CONFIG = "config.json"
_TOKENIZER_FILES = ("tokenizer_config.json", CONFIG, "processor_config.json", "preprocessor_config.json")
# Keys that make transformers import Python files, or read on in a file that nobody looked at.
_LOADING = frozenset(
    ("auto_map", "custom_pipelines", "configuration_files", "trust_remote_code", "code_revision", "gguf_file",
     "base_model_name_or_path")
)  # fmt: skip
_KERNELS = ("attn_implementation", "experts_implementation")  # a name with a slash is a repository with code
_CLASS = re.compile(r"(?!Auto)\w+(Tokenizer(Fast)?|Backend)")
_FIX = "save the model without its own code, or use another one"


def check_tokenizer(name: str) -> None:
    """Look at what says how a tokenizer is loaded, in a folder or a repository.

    Raises:
        ValueError: it names code, a class that is no tokenizer, or files elsewhere; says which file and key.
    """
    for file in _TOKENIZER_FILES:
        path = _find(name, file)
        if path is not None:
            _read(path)


def check_text_model(name: str, download: bool) -> dict[str, Any]:
    """The configuration of a text tower that transformers builds.

    Raises:
        ValueError: it brings code, or is of a kind that open_clip has no use for.
        FileNotFoundError: it is not there, or could not be fetched.
    """
    path = _find(name, CONFIG)
    if path is None:
        raise not_here(name, CONFIG, FileNotFoundError("there is none"), download)
    config = _read(path)
    if config.get("model_type") not in arch_dict:
        raise ValueError(
            f"{path}: model_type is {reprlib.repr(config.get('model_type'))}, accepted as a text tower: "
            f"{', '.join(sorted(arch_dict))}"
        )
    return config


def _read(path: Path) -> dict[str, Any]:
    document = read_json(path, what="a Hugging Face configuration", fix=_FIX)
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object, and should be a Hugging Face configuration; {_FIX}")
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                _check_entry(key, inner, path)
                pending.append(inner)
    return document


def _check_entry(key: str, value: Any, path: Path) -> None:
    shown = f"{path}: {key[:80]!r} is {reprlib.repr(value)}"
    if key in _LOADING and value:
        raise ValueError(f"{shown}, which loads code that comes with the model; {_FIX}")
    if key.removeprefix("_").removesuffix("_internal") in _KERNELS and any(map(_is_path, _texts(value))):
        raise ValueError(f"{shown}, which loads code from a hub; {_FIX}")
    if key == "tokenizer_class" and value is not None and not (isinstance(value, str) and _CLASS.fullmatch(value)):
        raise ValueError(f"{shown}, which is no tokenizer of transformers; {_FIX}")
    # transformers leaves out special_tokens_map_file, which old files have with a path of another machine.
    if key.endswith("_file") and key != "special_tokens_map_file" and _is_path(value):
        raise ValueError(f"{shown}, a file elsewhere; expected the name of a file beside it")


def _texts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _find(name: str, file: str) -> Path | None:
    """A file in a folder, in the cache, or on the hub where fetching is allowed; None where there is none."""
    if os.path.isdir(name):
        path = Path(name) / file
        return path if path.exists() else None
    from transformers.utils import cached_file

    try:
        cached = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # no such repository; transformers itself says so when it opens it
        return None
    return None if cached is None else Path(cached)

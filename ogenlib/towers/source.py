"""Where a backbone comes from: names, tags and files, checked before open_clip sees them.

No tensors here; everything refused is refused with the call that works.
"""

from __future__ import annotations

import difflib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from safetensors import SafetensorError, safe_open

BUNDLED = "ogen-tiny"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
_LOCAL, _HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class Source:
    """What to hand to open_clip.

    Attributes:
        open_clip_name: the name with its schema, as `open_clip.create_model` takes it.
        expects_quick_gelu: what the weights were trained with, None where nobody wrote it down.
        config_quick_gelu: what the model configuration would build.
    """

    open_clip_name: str
    pretrained: str | None
    expects_quick_gelu: bool | None
    config_quick_gelu: bool


def find_source(name: str, pretrained: str | Path | None = None) -> Source:
    """Resolve a backbone name.

    Raises:
        ValueError: unknown model or tag (close matches are named), `pretrained` given next to a name that
            brings its own weights, or a TorchScript archive as OpenAI ships them.
        FileNotFoundError: a folder, configuration or weights file is missing.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"model name is {name!r}, expected a name such as {BUNDLED!r} or 'ViT-B-16'")
    tag = None if pretrained is None else os.fspath(pretrained)
    brings_weights = name == BUNDLED or name.startswith((_LOCAL, _HUB))
    if brings_weights and tag is not None:
        raise ValueError(f"{name!r} brings its own weights, pretrained={tag!r} cannot be used with it: "
                         f"load_backbone({name!r})")  # fmt: skip
    if name == BUNDLED:
        return _local(Path(__file__).parent / "ogen_tiny", BUNDLED)
    if name.startswith(_LOCAL):
        return _local(Path(name[len(_LOCAL) :]).expanduser(), name)
    if name.startswith(_HUB):
        quick = bool(_config(name).get("quick_gelu", False))
        return Source(name, None, None, quick)
    return _built_in(name, tag)


def _local(folder: Path, name: str) -> Source:
    config = folder / CONFIG_FILE
    hint = "; reinstall ogenlib, the model ships with it" if name == BUNDLED else ""
    for path, what in ((folder, "folder"), (config, "configuration file")):
        if not path.exists():
            raise FileNotFoundError(f"{name!r}: {what} {path} does not exist{hint}")
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise FileNotFoundError(f"{name!r}: no weights ({', '.join(_WEIGHTS)}) in {folder}{hint}")
    quick = bool(_model_cfg(config).get("quick_gelu", False))
    return Source(f"{_LOCAL}{folder}", None, None, quick)


def _built_in(given: str, tag: str | None) -> Source:
    known, name = open_clip.list_models(), given.replace("/", "-")
    if name not in known:
        hint = _close(name, [*known, BUNDLED])
        if Path(given).is_dir():
            hint = f"; to open a folder: load_backbone('local-dir:{given}')"
        raise ValueError(f"unknown model {given!r}{hint}; accepted: {BUNDLED!r}, 'local-dir:FOLDER', "
                         "'hf-hub:ORG/NAME' or a name from open_clip.list_models()")  # fmt: skip
    quick = bool(_config(name).get("quick_gelu", False))
    if tag is None:
        return Source(name, None, None, quick)
    cfg: Any = open_clip.get_pretrained_cfg(name, tag)
    if cfg:
        trained = cfg.get("quick_gelu", False) if isinstance(cfg, dict) else getattr(cfg, "quick_gelu", False)
        return Source(name, tag, bool(trained), quick)
    path = Path(tag).expanduser()
    if path.is_file():
        if is_torchscript(path):
            raise ValueError(f"{path} is a TorchScript archive (the form OpenAI ships CLIP in): convert it once "
                             f"with `ogen convert openai {path}`, then load_backbone('local-dir:FOLDER')")  # fmt: skip
        return Source(name, str(path), _recorded_quick_gelu(path), quick)
    if path.is_dir():
        raise ValueError(f"pretrained={tag!r} is a folder: load_backbone('local-dir:{path}')")
    if os.sep in tag or path.suffix in (".pt", ".pth", ".bin", ".safetensors", ".npz"):
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    tags = open_clip.list_pretrained_tags_by_model(name)
    raise ValueError(f"{name!r} has no pretrained tag {tag!r}, and no such file exists{_close(tag, tags)}; "
                     f"tags: {', '.join(tags) or 'none'}")  # fmt: skip


def is_torchscript(path: Path) -> bool:
    """True for a TorchScript archive: a zip that carries code next to its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry or entry.endswith("/constants.pkl") for entry in archive.namelist())


def _recorded_quick_gelu(path: Path) -> bool | None:
    """What our converter wrote into the file's header, or into the configuration beside it."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(str(path), framework="pt") as file:
                recorded = (file.metadata() or {}).get("quick_gelu")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file ({error})") from error
        if recorded is not None:
            return recorded == "true"
    for sidecar in (path.with_suffix(".json"), path.parent / CONFIG_FILE):
        if sidecar.is_file():
            recorded = _model_cfg(sidecar).get("quick_gelu")
            if recorded is not None:
                return bool(recorded)
    return None


def _model_cfg(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): expected open_clip's model_cfg and preprocess_cfg") from error
    if not isinstance(document, dict) or not isinstance(document.get("model_cfg", document), dict):
        raise ValueError(f"{path} holds no model_cfg: expected an open_clip configuration")
    return document.get("model_cfg", document)


def _config(name: str) -> dict[str, Any]:
    return open_clip.get_model_config(name) or {}


def _close(given: str, known: Iterable[str]) -> str:
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(given.lower(), by_lower, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(by_lower[item]) for item in found)}?" if found else ""

"""Where a backbone comes from: names, tags and files, checked before open_clip sees them.

No tensors here; everything refused is refused with the call that works.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained_from_hf
from safetensors import SafetensorError, safe_open

from ogenlib.towers.configuration import check_model, read_configuration
from ogenlib.towers.hub import not_here
from ogenlib.utils.documents import read_json

BUNDLED = "ogen-tiny"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
LOCAL, HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class Source:
    """What to hand to open_clip.

    Attributes:
        open_clip_name: the name with its schema, as `open_clip.create_model` takes it.
        expects_quick_gelu: what the weights were trained with, None where nobody wrote it down.
        config_quick_gelu: what the model configuration would build.
        config: open_clip's `model_cfg`, checked.
        where: the file it came from, for messages.
    """

    open_clip_name: str
    pretrained: str | None
    expects_quick_gelu: bool | None
    config_quick_gelu: bool
    config: dict[str, Any] = field(default_factory=dict)
    where: str = ""


def find_source(name: str, pretrained: str | Path | None = None, download: bool = True) -> Source:
    """Resolve a backbone name, and check the configuration that it stands for.

    Args:
        download: of messages: whether the hub was asked.

    Raises:
        ValueError: unknown model or tag (close matches are named), `pretrained` given next to a name that
            brings its own weights, or a configuration with anything in it but a model's description.
        FileNotFoundError: a folder, configuration or weights file is missing.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"model name is {name!r}, expected a name such as {BUNDLED!r} or 'ViT-B-16'")
    tag = None if pretrained is None else os.fspath(pretrained)
    brings_weights = name == BUNDLED or name.startswith((LOCAL, HUB))
    if brings_weights and tag is not None:
        raise ValueError(
            f"{name!r} brings its own weights, pretrained={tag!r} cannot be used with it: load_backbone({name!r})"
        )
    if name == BUNDLED:
        return _local(Path(__file__).parent / "ogen_tiny", BUNDLED)
    if name.startswith(LOCAL):
        return _local(Path(name[len(LOCAL) :]).expanduser(), name)
    if name.startswith(HUB):
        try:
            path = Path(download_pretrained_from_hf(name.removeprefix(HUB), filename=CONFIG_FILE))
        except OSError as error:
            raise not_here(name, CONFIG_FILE, error, download) from error
        return _source(name, None, None, read_configuration(path)["model_cfg"], path)
    return _built_in(name, tag)


def _local(folder: Path, name: str) -> Source:
    config = folder / CONFIG_FILE
    hint = "; reinstall ogenlib, the model ships with it" if name == BUNDLED else ""
    for path, what in ((folder, "folder"), (config, "configuration file")):
        if not path.exists():
            raise FileNotFoundError(f"{name!r}: {what} {path} does not exist{hint}")
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise FileNotFoundError(f"{name!r}: no weights ({', '.join(_WEIGHTS)}) in {folder}{hint}")
    return _source(f"{LOCAL}{folder}", None, None, read_configuration(config)["model_cfg"], config)


def _built_in(given: str, tag: str | None) -> Source:
    known, name = open_clip.list_models(), given.replace("/", "-")
    if name not in known:
        hint = _close(name, [*known, BUNDLED])
        if Path(given).is_dir():
            hint = f"; to open a folder: load_backbone('local-dir:{given}')"
        raise ValueError(
            f"unknown model {given!r}{hint}; accepted: {BUNDLED!r}, 'local-dir:FOLDER', "
            "'hf-hub:ORG/NAME' or a name from open_clip.list_models()"
        )
    config = open_clip.get_model_config(name) or {}
    where = f"open_clip's configuration {name!r}"
    check_model(config, where)
    if tag is None:
        return _source(name, None, None, config, where)
    cfg: Any = open_clip.get_pretrained_cfg(name, tag)
    if cfg:
        trained = cfg.get("quick_gelu", False) if isinstance(cfg, dict) else getattr(cfg, "quick_gelu", False)
        return _source(name, tag, bool(trained), config, where)
    path = Path(tag).expanduser()
    if path.is_file():
        return _source(name, str(path), _recorded_quick_gelu(path), config, where)
    if path.is_dir():
        raise ValueError(f"pretrained={tag!r} is a folder: load_backbone('local-dir:{path}')")
    if path.exists():
        raise ValueError(f"checkpoint {path} is no file; name one that torch.save or safetensors wrote")
    if os.sep in tag or path.suffix in (".pt", ".pth", ".bin", ".safetensors", ".npz"):
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    tags = open_clip.list_pretrained_tags_by_model(name)
    raise ValueError(
        f"{name!r} has no pretrained tag {tag!r}, and no such file exists{_close(tag, tags)}; "
        f"tags: {', '.join(tags) or 'none'}"
    )


def _source(
    name: str, pretrained: str | None, expects_quick_gelu: bool | None, config: dict[str, Any], where: Path | str
) -> Source:
    return Source(name, pretrained, expects_quick_gelu, bool(config.get("quick_gelu", False)), config, str(where))


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
    what = "an open_clip configuration"
    document = read_json(path, what=what, fix="remove it, or write it anew with `ogen convert openai`")
    if not isinstance(document, dict) or not isinstance(document.get("model_cfg", document), dict):
        raise ValueError(f"{path} holds no model_cfg: expected {what}")
    return document.get("model_cfg", document)


def _close(given: str, known: Iterable[str]) -> str:
    by_lower = {item.lower(): item for item in known}
    matches = difflib.get_close_matches(given.lower(), by_lower, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(by_lower[item]) for item in matches)}?" if matches else ""

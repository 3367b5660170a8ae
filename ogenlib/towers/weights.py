"""The file with a backbone's weights, checked before open_clip opens it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import open_clip.factory
import open_clip.pretrained
from safetensors import SafetensorError, safe_open
from torch import nn

from ogenlib.towers.checkpoint import check_state_dict
from ogenlib.towers.hub import not_here
from ogenlib.towers.source import HUB, LOCAL, Source
from ogenlib.utils.files import DamagedFile
from ogenlib.utils.tensors import open_tensors, recorded_digest

_FIX = "name a safetensors file, or a state dict that torch.save wrote"


def weights_of(source: Source, download: bool) -> Path | None:
    """The file that open_clip will open, fetched where that is allowed; None for random weights.

    Raises:
        FileNotFoundError: it is not there, or could not be fetched.
    """
    name, given = source.open_clip_name, source.pretrained
    if name.startswith(LOCAL):
        return Path(open_clip.factory._find_checkpoint_in_dir(Path(name.removeprefix(LOCAL))))
    try:
        if name.startswith(HUB):
            return Path(open_clip.pretrained.download_pretrained_from_hf(name.removeprefix(HUB)))
        if given is None:
            return None
        tag: Any = open_clip.get_pretrained_cfg(name, given)
        return Path(open_clip.pretrained.download_pretrained(tag) if tag else given)
    except Exception as error:  # the libraries that fetch have none in common
        raise not_here(name, f"the weights {given!r}" if given else "its weights", error, download) from error


def check_weights(path: Path) -> None:
    """Read a weights file once, without running anything in it.

    Raises:
        ValueError: names the file: no weights, damaged, TorchScript, or nothing that can be read without trust.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; {_FIX}")
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix in (".npz", ".npy"):
        _check_arrays(path)
    elif check_state_dict(path, _FIX):
        raise ValueError(
            f"{path} is a TorchScript archive (the form OpenAI ships CLIP in): convert it once "
            f"with `ogen convert openai {path}`, then load_backbone('local-dir:FOLDER')"
        )


def check_finite(model: nn.Module, weights: Path | str) -> None:
    """ValueError with the first parameter that holds a number that is not finite."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(
                f"{weights}: the weights {name!r} hold numbers that are not finite; "
                "they were damaged, or are too large for this precision"
            )


def _check_safetensors(path: Path) -> None:
    if recorded_digest(path) is not None:
        open_tensors(path, what="the weights of a model", fix=_FIX)
        return
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read as a safetensors file ({error}); {_FIX}") from error


def _check_arrays(path: Path) -> None:
    """numpy's archives, which big_vision writes: laid out as torch's, but for the folder."""
    try:
        with zipfile.ZipFile(path) as file:
            packed = [entry.filename for entry in file.infolist() if entry.compress_size != entry.file_size]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError) as error:
        raise DamagedFile(f"{path} cannot be read as numpy's archive ({error}); {_FIX}") from error
    if packed:
        raise DamagedFile(f"{path}: {packed[0][:80]!r} is compressed, and could be of any size; write it by np.savez")

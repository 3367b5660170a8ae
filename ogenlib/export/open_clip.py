"""A trained run for people without ogenlib: a linear head, or an open_clip folder with the head beside it.

What can be written depends on what the host changes. Class weights alone, or tensors of the model itself
(`Host.merged`): both formats. Weights that depend on the image, or an image side with prompts or layers of its own:
neither; `ogenlib.export.onnx` writes the whole computation instead.

The JSON of an export holds the SHA-256 of every other file in it, so that anyone can check them without ogenlib.

Notation: `C` classes, `D` embedding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.hosts import Host
from ogenlib.runs.saved import fixed_weights, names_for
from ogenlib.towers import Backbone
from ogenlib.towers.folder import model_config, write_open_clip
from ogenlib.utils.documents import write_document
from ogenlib.utils.files import atomic_folder, refuse_existing
from ogenlib.utils.tensors import write_tensors

HEAD_FORMAT = "ogenlib.head/1"
_CHUNK = 8 * 2**20  # bytes that are read at a time
HEAD_FILE, HEAD_CARD, TOWER_FILE = "head.safetensors", "head.json", "image_tower.safetensors"


def obstacle(host: Host) -> str | None:
    """What keeps a host from being an image tower and fixed class weights; None if nothing does."""
    if host.own_image_side:
        return "it computes image features of its own, not the image tower's"
    if host.own_logits:
        return "its logits are more than image features times class weights"
    return None if fixed_weights(host) is not None else "its class weights depend on the image"


def to_linear_head(host: Host, names: Sequence[str] | None = None) -> nn.Linear:
    """A linear layer from unit image features `(B, D)` to logits `(B, C)`, scale and bias included; frozen, on the CPU.

    Args:
        names: of the classes, any names; None for the training names.

    Raises:
        ValueError: the host is no linear head (which part is not, and the call that works).
    """
    weights = _weights(host, names)
    head = nn.Linear(weights.shape[1], weights.shape[0], bias=True)
    with torch.no_grad():
        head.weight.copy_(host.clip.logit_scale.cpu() * weights)
        head.bias.copy_(torch.zeros(()) if host.clip.logit_bias is None else host.clip.logit_bias.cpu())
    return head.eval().requires_grad_(False)


def export_head(
    host: Host, out: str | os.PathLike[str], names: Sequence[str] | None = None, *, tower: bool = True
) -> Path:
    """Write `head.safetensors`, `head.json` and, with `tower`, `image_tower.safetensors`.

    The tower's file is a state dict for `model.visual` of the open_clip model named in `head.json`.

    Args:
        out: a folder that does not exist or is empty; it appears whole or not at all.
        names: of the classes, any names; None for the training names.

    Raises:
        FileExistsError: there is something at `out`.
        ValueError: the host is no linear head, or has no image tower to write.
    """
    refuse_existing(out)
    weights, merged = _weights(host, names), host.merged()
    clip = host.clip
    if tower and not isinstance(clip, Backbone):
        raise ValueError(f"{clip.name!r} has no image tower to write; pass tower=False for the head alone")
    with atomic_folder(out) as work:
        if tower and isinstance(clip, Backbone):
            state = {**clip.model.state_dict(), **(merged or {})}
            visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
            write_tensors(work / TOWER_FILE, visual)
        _write_head(host, weights, names, work, merged)
    return Path(out)


def export_open_clip(host: Host, out: str | os.PathLike[str], names: Sequence[str] | None = None) -> Path:
    """Write a folder that `open_clip.create_model("local-dir:FOLDER")` opens, with the head's files in it.

    The model's tensors are unchanged but for those the host has replaced (`Host.merged`).

    Args:
        out: a folder that does not exist or is empty; it appears whole or not at all.
        names: of the head's classes, any names; None for the training names.

    Raises:
        FileExistsError: there is something at `out`.
        ValueError: the host is no linear head, has no model, or open_clip cannot open the model from a folder.
    """
    refuse_existing(out)
    weights, merged = _weights(host, names), host.merged()
    if not isinstance(host.clip, Backbone):
        raise ValueError(f"{host.clip.name!r} is no open_clip model; write the head alone: export_head(tower=False)")
    with atomic_folder(out) as work:
        write_open_clip(host.clip, work, merged)
        _write_head(host, weights, names, work, merged)
    return Path(out)


def card(host: Host, names: Sequence[str] | None, form: str) -> dict[str, Any]:
    """What a user of an export has to know; JSON-able.

    ``logit_scale`` is exponentiated already; ``backbone`` is the fingerprint of the model the run was trained on.
    """
    clip = host.clip
    return {
        "format": form,
        "method": host.info.name,
        "ogen": host.inner is not host,
        "names": list(names_for(host, names)),
        "trained_names": list(host.names),
        "logit_scale": float(clip.logit_scale),
        "logit_bias": None if clip.logit_bias is None else float(clip.logit_bias),
        "preprocess": clip.preprocess_cfg,
        "backbone": clip.fingerprint(),
    }


def _write_head(
    host: Host, weights: Tensor, names: Sequence[str] | None, folder: Path, merged: Mapping[str, Tensor] | None
) -> None:
    write_tensors(folder / HEAD_FILE, {"weight": weights}, {"format": HEAD_FORMAT})
    record = {**card(host, names, HEAD_FORMAT), "merged": sorted(merged or ())}
    if isinstance(host.clip, Backbone):
        record["model_cfg"] = model_config(host.clip)
    write_document(folder / HEAD_CARD, {**record, "files": digests(folder)})


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 in hex of the bytes of each file below a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _weights(host: Host, names: Sequence[str] | None) -> Tensor:
    reason = obstacle(host)
    weights = None if reason else fixed_weights(host, names)
    if weights is None:
        raise ValueError(
            f"{host.info.name} is no image tower with fixed class weights: {reason}. "
            "export_onnx (ogen export RUN --format onnx) writes its whole computation for given names, "
            "and og.Classifier.load(RUN) runs it as it is"
        )
    width = host.clip.embed_dim  # behind it, where a wrapper scores some names on the frozen tower: what these see
    if weights[:, width:].any():
        raise ValueError(
            f"{host.info.name} with OGEN scores names without images on the frozen image tower, beside its own: export "
            "the names it was trained on (--names), or write both towers with export_onnx (--format onnx)"
        )
    return weights[:, :width].contiguous()

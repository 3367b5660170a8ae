"""Training checkpoints: one safetensors file, written whole or not at all.

Holds the host's own tensors, the optimizer's and the gradient scaler's state, the epoch and the history.
Random numbers need no state: every epoch's generator is seeded by (seed, epoch).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ogenlib.utils.files import atomic_write

FORMAT = "ogenlib.checkpoint/1"


def _flatten(state: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move tensors out of a nested state into `tensors`, leaving their names behind."""
    if isinstance(state, Tensor):
        tensors[path] = state.detach().cpu().contiguous()
        return {"__tensor__": path}
    if isinstance(state, dict):
        return {"__items__": [[k, _flatten(v, f"{path}/{k}", tensors)] for k, v in state.items()]}
    if isinstance(state, (list, tuple)):
        return [_flatten(v, f"{path}/{i}", tensors) for i, v in enumerate(state)]
    return state


def _restore(state: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(state, dict) and "__tensor__" in state:
        return tensors[state["__tensor__"]]
    if isinstance(state, dict):
        return {k: _restore(v, tensors) for k, v in state["__items__"]}
    if isinstance(state, list):
        return [_restore(v, tensors) for v in state]
    return state


def save_checkpoint(path: Path, *, host: nn.Module, states: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write host tensors, `states` (optimizer and scaler state dicts) and JSON-able `meta`."""
    tensors = {f"host/{k}": v.detach().cpu().clone().contiguous() for k, v in host.state_dict().items()}
    header = {"format": FORMAT, "states": _flatten(states, "state", tensors), **meta}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"checkpoint": json.dumps(header)})


def load_checkpoint(path: Path, host: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put the host's tensors back in place; returns (states, meta).

    Raises:
        ValueError: not a checkpoint, or one of a host with other tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  safe_open is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as a checkpoint ({error}); delete it to start over") from error
    if header.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: is not a checkpoint of format {FORMAT}; delete it to start over")
    own = {k.removeprefix("host/"): v for k, v in tensors.items() if k.startswith("host/")}
    expected = {k: tuple(v.shape) for k, v in host.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in own.items()}
    if expected != found:
        raise ValueError(f"{path}: holds {found}, this host has {expected}; use another output folder")
    with torch.no_grad():
        for k, v in host.state_dict().items():
            v.copy_(own[k])
    return _restore(header.pop("states"), tensors), header

"""Training checkpoints: one safetensors file, written whole or not at all.

Holds the host's own tensors, the optimizer's and the gradient scaler's state, the epoch and the history.
Random numbers need no state: every epoch's generator is seeded by (seed, epoch). The number of threads is kept,
because sums over other parts differ in their last bits.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from ogenlib.utils.documents import DamagedFile, conform
from ogenlib.utils.tensors import open_tensors, write_tensors

_log = logging.getLogger(__name__)
FORMAT = "ogenlib.checkpoint/1"
WHAT, FIX = "a checkpoint", "delete it to start over, or name another output folder"


class Progress(TypedDict):
    """How far a training is. signature: what it must agree on to be continued, see `ogenlib.train.loop`."""

    epoch: int
    history: list[dict[str, Any]]
    signature: dict[str, Any]


class Header(Progress):
    """states: nested, with names of tensors in place of tensors."""

    format: str
    states: dict[str, Any]


def _flatten(state: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move tensors out of a nested state into `tensors`, leaving their names behind."""
    if isinstance(state, Tensor):
        tensors[path] = state
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


def save_checkpoint(path: Path, *, host: nn.Module, states: dict[str, Any], meta: Progress) -> None:
    """Write host tensors, `states` (optimizer and scaler state dicts) and how far the training is."""
    tensors = {f"host/{k}": v for k, v in host.state_dict().items()}
    kept = _flatten(states, "state", tensors)
    header = {"format": FORMAT, "states": kept, "threads": torch.get_num_threads(), **meta}
    write_tensors(path, tensors, {"checkpoint": json.dumps(header)})


def load_checkpoint(path: Path, host: nn.Module) -> tuple[dict[str, Any], Progress]:
    """Put the host's tensors back in place; returns (states, progress).

    Logs a warning where training went on with another number of threads than now.

    Raises:
        ValueError: not a checkpoint, one that was changed, or one of a host with other tensors.
    """
    opened = open_tensors(path, what=WHAT, fix=FIX)
    raw = opened.header("checkpoint", WHAT, FIX)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise DamagedFile(f"{path}: is not a checkpoint of format {FORMAT}; {FIX}")
    header: Header = conform(raw, Header, path, WHAT, FIX)
    own = {k.removeprefix("host/"): v for k, v in opened.tensors.items() if k.startswith("host/")}
    expected = {k: tuple(v.shape) for k, v in host.state_dict().items()}
    shapes = {k: tuple(v.shape) for k, v in own.items()}
    if expected != shapes:
        raise ValueError(f"{path}: holds {shapes}, this host has {expected}; use another output folder")
    try:
        states = _restore(header["states"], opened.tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}: its states do not fit its tensors ({error!r}); {FIX}") from error
    with torch.no_grad():
        for k, v in host.state_dict().items():
            v.copy_(own[k])
    threads = raw.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads():
        _log.warning(
            "%s was made with %s threads and is continued with %d: the end may differ in the last bits from that of an "
            "uninterrupted run; set OMP_NUM_THREADS=%s for the same",
            path,
            threads,
            torch.get_num_threads(),
            threads,
        )
    return states, header

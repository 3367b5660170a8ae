"""Methods, one paper per file. `list_methods()` names them, `build` makes one by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from ogenlib.hosts.base import Batch, Host, MethodInfo
from ogenlib.hosts.clap import CLAP
from ogenlib.hosts.clip_adapter import CLIPAdapter
from ogenlib.hosts.cocoop import CoCoOp
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.cross_modal import CrossModal
from ogenlib.hosts.full_ft import FullFT
from ogenlib.hosts.ivlp import IVLP
from ogenlib.hosts.kgcoop import KgCoOp
from ogenlib.hosts.maple import MaPLe
from ogenlib.hosts.prograd import ProGrad
from ogenlib.hosts.promptkd import PromptKD
from ogenlib.hosts.promptsrc import PromptSRC
from ogenlib.hosts.ship import SHIP
from ogenlib.hosts.taskres import TaskRes
from ogenlib.hosts.text_adapter import TextAdapter
from ogenlib.hosts.tip_adapter import TipAdapter, TipAdapterF
from ogenlib.hosts.vpt import VPT
from ogenlib.hosts.zero_shot import ZeroShot, ZeroShotAnchor, zero_shot_weights
from ogenlib.towers import ClipLike

_HOSTS: tuple[type[Host], ...] = (
    ZeroShot, CoOp, CoCoOp, KgCoOp, ProGrad, SHIP, VPT, IVLP, MaPLe, PromptSRC, PromptKD,
    TextAdapter, CLIPAdapter, TipAdapter, TipAdapterF, TaskRes, CLAP, CrossModal,
    FullFT,
)  # fmt: skip
METHODS: dict[str, type[Host]] = {cls.info.name: cls for cls in _HOSTS}

__all__ = [
    "CLAP", "IVLP", "METHODS", "SHIP", "VPT", "Batch", "CLIPAdapter", "CoCoOp", "CoOp", "CrossModal", "FullFT", "Host",
    "KgCoOp", "MaPLe", "MethodInfo", "ProGrad", "PromptKD", "PromptSRC", "TaskRes", "TextAdapter", "TipAdapter",
    "TipAdapterF", "ZeroShot", "ZeroShotAnchor", "build", "list_methods", "method", "zero_shot_weights",
]  # fmt: skip


def list_methods() -> list[MethodInfo]:
    """What every method is called and where it comes from."""
    return [cls.info for cls in METHODS.values()]


def method(name: str) -> type[Host]:
    """The class of a method; ValueError with close matches for an unknown name."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"method {name!r} is unknown; known are {', '.join(METHODS)}{hint}")
    return METHODS[name]


def build(name: str, clip: ClipLike, names: Sequence[str], **config: Any) -> Host:
    """A host by name, with the keyword arguments its `config()` gives."""
    return method(name)(clip, names, **config)

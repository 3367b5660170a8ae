"""Methods, one paper per file. `list_methods()` names them, `build` makes one by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

from ogenlib.hosts.arf import ARF
from ogenlib.hosts.base import Batch, Host, MethodInfo
from ogenlib.hosts.car_ft import CARFT
from ogenlib.hosts.carot import CaRot
from ogenlib.hosts.clap import CLAP
from ogenlib.hosts.clip_adapter import CLIPAdapter
from ogenlib.hosts.cocoop import CoCoOp
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.cross_modal import CrossModal
from ogenlib.hosts.ema import EMA
from ogenlib.hosts.flyp import FLYP
from ogenlib.hosts.full_ft import FullFT
from ogenlib.hosts.ivlp import IVLP
from ogenlib.hosts.kd import KD
from ogenlib.hosts.kgcoop import KgCoOp
from ogenlib.hosts.l2_sp import L2SP
from ogenlib.hosts.linear_probe import LinearProbe
from ogenlib.hosts.lipsum import LipsumFT
from ogenlib.hosts.lp_ft import LPFT
from ogenlib.hosts.maple import MaPLe
from ogenlib.hosts.method_names import ELSEWHERE, plain, spellings
from ogenlib.hosts.prograd import ProGrad
from ogenlib.hosts.promptkd import PromptKD
from ogenlib.hosts.promptsrc import PromptSRC
from ogenlib.hosts.r_adapter import RAdapter
from ogenlib.hosts.ship import SHIP
from ogenlib.hosts.starft import StarFT
from ogenlib.hosts.taskres import TaskRes
from ogenlib.hosts.text_adapter import TextAdapter
from ogenlib.hosts.tip_adapter import TipAdapter, TipAdapterF
from ogenlib.hosts.tracer import TRACER
from ogenlib.hosts.vpt import VPT
from ogenlib.hosts.zero_shot import ZeroShot, ZeroShotAnchor, zero_shot_weights
from ogenlib.towers import ClipLike

_HOSTS: tuple[type[Host], ...] = (
    ZeroShot, CoOp, CoCoOp, KgCoOp, ProGrad, SHIP, VPT, IVLP, MaPLe, PromptSRC, PromptKD,
    TextAdapter, CLIPAdapter, TipAdapter, TipAdapterF, TaskRes, CLAP, CrossModal,
    LinearProbe, FullFT, LPFT, EMA, L2SP, KD, CARFT, FLYP, StarFT, LipsumFT, RAdapter, ARF, CaRot, TRACER,
)  # fmt: skip
METHODS: dict[str, type[Host]] = {cls.info.name: cls for cls in _HOSTS}
"""The hosts by the names of their methods; a program adds its own by an entry."""

__all__ = [
    "ARF", "CARFT", "CLAP", "EMA", "FLYP", "IVLP", "KD", "L2SP", "LPFT", "METHODS", "SHIP", "TRACER", "VPT", "Batch",
    "CLIPAdapter", "CaRot", "CoCoOp", "CoOp", "CrossModal", "FullFT", "Host", "KgCoOp", "LinearProbe", "LipsumFT",
    "MaPLe", "MethodInfo", "ProGrad", "PromptKD", "PromptSRC", "RAdapter", "StarFT", "TaskRes", "TextAdapter",
    "TipAdapter", "TipAdapterF", "ZeroShot", "ZeroShotAnchor", "build", "learns_pairs", "list_methods", "method",
    "method_name", "takes_anchors", "takes_option", "takes_texts", "zero_shot_weights",
]  # fmt: skip


def list_methods() -> list[MethodInfo]:
    """What every method is called and where it comes from."""
    return [cls.info for cls in METHODS.values()]


def method_name(name: str) -> str:
    """The name of a method by any of its spellings: ``r_adapter`` for "R-Adapter", "r-adapter" or "radapter".

    Raises:
        ValueError: no such method, with close matches.
    """
    if name in METHODS:
        return name
    known, asked = spellings(list(METHODS)), plain(name)
    if asked in known:
        return known[asked]
    close = difflib.get_close_matches(asked, known, n=1)
    hint = f"; did you mean {known[close[0]]!r}?" if close else ""
    hint = f"; {ELSEWHERE[asked]}" if asked in ELSEWHERE else hint
    raise ValueError(f"method {name!r} is unknown; known are {', '.join(METHODS)}{hint}")


def method(name: str) -> type[Host]:
    """The class of a method, by any spelling of its name; ValueError with close matches for an unknown one."""
    return METHODS[method_name(name)]


def option_names(cls: type[Host]) -> list[str]:
    """Keyword arguments that a method is made with: its own, then those that it hands on to what it is built on."""
    return list(dict.fromkeys(name for _, name in _options(cls)))


def option_types(cls: type[Host]) -> dict[str, Any]:
    """The same with their types; of an argument that several constructors have, the method's own."""
    found: dict[str, Any] = {}
    for kind, name in _options(cls):
        found.setdefault(name, get_type_hints(vars(kind)["__init__"]).get(name, Any))
    return found


def _options(cls: type[Host]) -> list[tuple[type, str]]:
    """(the class whose constructor has it, keyword argument), the method's own first."""
    found: list[tuple[type, str]] = []
    for kind in cls.__mro__:
        if "__init__" in vars(kind):
            own = list(inspect.signature(vars(kind)["__init__"]).parameters.values())
            found += [(kind, p.name) for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    return [(kind, name) for kind, name in found if name not in ("self", "clip", "names", "generator")]


def takes_option(cls: type[Host], option: str) -> bool:
    """Whether a method is made with this keyword argument."""
    return option in option_names(cls)


def takes_texts(cls: type[Host]) -> bool:
    """Whether a method has the option `texts`, name -> its texts: it learns from pairs of image and text."""
    return takes_option(cls, "texts")


def takes_anchors(cls: type[Host]) -> bool:
    """Whether a method trains with captions of images and with retrieved pairs."""
    return takes_option(cls, "anchors")


def learns_pairs(cls: type[Host]) -> bool:
    """Whether a method can be trained on images with captions that have no class names."""
    return takes_texts(cls) and not cls.reads_names


def build(name: str, clip: ClipLike, names: Sequence[str], **config: Any) -> Host:
    """A host by name, with the keyword arguments its `config()` gives."""
    return method(name)(clip, names, **config)

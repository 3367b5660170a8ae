"""Methods, one paper per file. `list_methods()` names them, `build` makes one by name.

Every file of this folder is imported, and a class with `@register` is a method. Those that are named below can be
imported from here under the eyes of a type checker; a new file needs no line.
"""

from __future__ import annotations

from ogenlib.hosts.arf import ARF
from ogenlib.hosts.base import Batch, Host, MethodInfo
from ogenlib.hosts.car_ft import CARFT
from ogenlib.hosts.carot import CaRot
from ogenlib.hosts.clap import CLAP
from ogenlib.hosts.clip_adapter import CLIPAdapter
from ogenlib.hosts.cocoop import CoCoOp
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.cross_modal import CrossModal
from ogenlib.hosts.ema import WeightEMA
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
from ogenlib.hosts.options import learns_pairs, option_names, option_types, takes_anchors, takes_option, takes_texts
from ogenlib.hosts.prograd import ProGrad
from ogenlib.hosts.promptkd import PromptKD
from ogenlib.hosts.promptsrc import PromptSRC
from ogenlib.hosts.r_adapter import RAdapter
from ogenlib.hosts.registry import METHODS, build, import_all, list_methods, method, method_name, register
from ogenlib.hosts.ship import SHIP
from ogenlib.hosts.starft import StarFT
from ogenlib.hosts.taskres import TaskRes
from ogenlib.hosts.text_adapter import TextAdapter
from ogenlib.hosts.tip_adapter import TipAdapter, TipAdapterF
from ogenlib.hosts.tracer import TRACER
from ogenlib.hosts.vpt import VPT
from ogenlib.hosts.zero_shot import ZeroShot, ZeroShotAnchor, zero_shot_weights

__all__ = [
    "ARF", "CARFT", "CLAP", "FLYP", "IVLP", "KD", "L2SP", "LPFT", "METHODS", "SHIP", "TRACER", "VPT", "Batch",
    "CLIPAdapter", "CaRot", "CoCoOp", "CoOp", "CrossModal", "FullFT", "Host", "KgCoOp", "LinearProbe", "LipsumFT",
    "MaPLe", "MethodInfo", "ProGrad", "PromptKD", "PromptSRC", "RAdapter", "StarFT", "TaskRes", "TextAdapter",
    "TipAdapter", "TipAdapterF", "WeightEMA", "ZeroShot", "ZeroShotAnchor", "build", "learns_pairs", "list_methods",
    "method", "method_name", "option_names", "option_types", "register", "takes_anchors", "takes_option", "takes_texts",
    "zero_shot_weights",
]  # fmt: skip

import_all(__name__, __path__)
globals().update({cls.__name__: cls for cls in METHODS.values()})

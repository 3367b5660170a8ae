"""How methods are written: their names in tables and reports, and the spellings by which they are found."""

from __future__ import annotations

import re

TITLES = {
    "zero_shot": "Zero-shot", "coop": "CoOp", "cocoop": "CoCoOp", "kgcoop": "KgCoOp", "prograd": "ProGrad",
    "ship": "SHIP", "vpt": "VPT", "ivlp": "IVLP", "maple": "MaPLe", "promptsrc": "PromptSRC", "promptkd": "PromptKD",
    "text_adapter": "Text adapter", "clip_adapter": "CLIP-Adapter", "tip_adapter": "Tip-Adapter",
    "tip_adapter_f": "Tip-Adapter-F", "taskres": "TaskRes", "clap": "CLAP", "cross_modal": "Cross-modal probe",
    "linear_probe": "Linear probe", "full_ft": "Full fine-tuning", "lp_ft": "LP-FT", "ema": "EMA of weights",
    "l2_sp": "L2-SP", "kd": "Self-distillation (KD)", "car_ft": "CAR-FT", "flyp": "FLYP", "starft": "StarFT",
    "lipsum_ft": "Lipsum-FT", "r_adapter": "R-Adapter", "arf": "ARF", "carot": "CaRot", "tracer": "TRACER",
}  # fmt: skip
# Letters and digits alone; a method's own name and its title need no entry.
OTHER_SPELLINGS = {
    "clip": "zero_shot", "crossmodal": "cross_modal", "crossmodaladaptation": "cross_modal", "lp": "linear_probe",
    "ft": "full_ft", "full": "full_ft", "finetuning": "full_ft", "finetune": "full_ft", "fullfinetune": "full_ft",
    "fft": "full_ft", "linearprobethenfinetune": "lp_ft", "emaofweights": "ema", "selfdistillation": "kd",
    "distillation": "kd", "lipsum": "lipsum_ft", "residualadapter": "r_adapter", "radapters": "r_adapter",
    "finetunelikeyoupretrain": "flyp", "anchorbasedrobustfinetuning": "arf",
}  # fmt: skip
_WISE = ("WiSE-FT lies between the start and the end of any method: --protocol domain-shift sweeps it, ogen eval RUN "
         "--alpha 0.5 tests it, ogenlib.merge.wise.wise_ft makes it")  # fmt: skip
_SOUP = "model soups are made of several trained runs: ogenlib.merge.states.soup and greedy_soup"
ELSEWHERE = {  # what is no method of its own, and where it is
    "wiseft": _WISE, "wise": _WISE, "soup": _SOUP, "modelsoup": _SOUP, "modelsoups": _SOUP,
    "vrf": "VRF mixes a trained method and zero-shot image by image: ogenlib.merge.vrf.VRF(host, bank)",
    "ogen": "OGEN goes around a method: --ogen, or ogenlib.OGEN(host, known, unknown)",
}  # fmt: skip


def plain(name: str) -> str:
    """What spellings of one name share: its letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def title(name: str) -> str:
    """A method as its paper spells it; a name without an entry with spaces for underscores."""
    return TITLES.get(name, name.replace("_", " "))


def spellings(names: list[str]) -> dict[str, str]:
    """`plain` spelling -> name, for the methods `names`."""
    found = {spelling: name for spelling, name in OTHER_SPELLINGS.items() if name in names}
    found |= {plain(title(name)): name for name in names}
    return found | {plain(name): name for name in names}

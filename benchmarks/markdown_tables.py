"""Markdown tables, and how numbers and methods are written in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

METHOD_NAMES = {
    "zero_shot": "zero-shot", "coop": "CoOp", "kgcoop": "KgCoOp", "text_adapter": "text adapter", "taskres": "TaskRes",
    "cocoop": "CoCoOp", "prograd": "ProGrad", "ship": "SHIP", "vpt": "VPT", "ivlp": "IVLP", "maple": "MaPLe",
    "promptsrc": "PromptSRC", "promptkd": "PromptKD, zero-shot teacher", "clip_adapter": "CLIP-Adapter",
    "tip_adapter": "Tip-Adapter",
    "tip_adapter_f": "Tip-Adapter-F", "clap": "CLAP", "cross_modal": "cross-modal probe",
    "linear_probe": "linear probe", "full_ft": "full fine-tuning", "lp_ft": "LP-FT", "ema": "EMA", "l2_sp": "L2-SP",
    "kd": "self-distillation", "car_ft": "CAR-FT", "flyp": "FLYP", "starft": "StarFT", "lipsum_ft": "Lipsum-FT",
    "r_adapter": "R-Adapter", "arf": "ARF", "carot": "CaRot", "tracer": "TRACER",
}  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def spread(value: Sequence[float | None]) -> str:
    """`[mean, std]` as `mean ± std`; a single run has no std."""
    mean, std = value
    return number(mean) if mean is None or std is None else f"{mean:.1f} ± {std:.1f}"

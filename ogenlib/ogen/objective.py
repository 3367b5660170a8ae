"""What OGEN adds to a host's loss in a step: functions of logits and settings, and the teacher that one term asks.

Notation: `B` images, `S` synthesized features, `C` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.distill import EMA, AdaptiveLocalMeanTeacher, MeanTeacher, Teacher, kl_divergence, logit_l2
from ogenlib.ogen.config import OGENConfig


@dataclass(frozen=True)
class StepLogits:
    """What host, zero-shot and teacher say of a step's images and of the synthesized features below them.

    Attributes:
        host, zero_shot, teacher: `(B + S, C)`, known names first; no `teacher` where none is asked.
        labels: `(S,)` into the names; None without synthesized features.
        n_images: `B`.
        n_known: how many of the names have images.
    """

    host: Tensor
    zero_shot: Tensor
    teacher: Tensor | None
    labels: Tensor | None
    n_images: int
    n_known: int


def step_terms(step: StepLogits, config: OGENConfig) -> dict[str, Tensor]:
    """The weighted terms, scalars; those without a weight are left out."""
    terms: dict[str, Tensor] = {}
    images, synthesized = slice(None, step.n_images), slice(step.n_images, None)
    if config.zero_shot_kl:
        gap = kl_divergence(step.host[images], step.zero_shot[images], config.temperature)
        terms["zero_shot_kl_real"] = config.zero_shot_kl * gap
    if step.labels is not None:
        if config.synthesized_kl:
            gap = kl_divergence(step.host[synthesized], step.zero_shot[synthesized], config.temperature)
            terms["zero_shot_kl_synthesized"] = config.synthesized_kl * gap
        if config.synthesized_ce:
            terms["synthesized_ce"] = config.synthesized_ce * F.cross_entropy(step.host[synthesized], step.labels)
        if config.synthesized_ce_within:
            within = cross_entropy_within(step.host[synthesized], step.labels, step.n_known)
            terms["synthesized_ce_within"] = config.synthesized_ce_within * within
    if step.teacher is not None:
        parts = [images] if step.labels is None else [images, synthesized]
        # Each part has its own mean: processes share the images and all have the same synthesized features.
        distances = [teacher_distance(step.host[part], step.teacher[part], config) for part in parts]
        terms["teacher"] = config.teacher_weight * torch.stack(distances).mean()
    return terms


def wants_synthesized(config: OGENConfig, teacher: bool) -> bool:
    """Whether a term sees synthesized features; `teacher`: whether there is one."""
    taught = config.teacher_weight if teacher else 0.0
    return any((config.synthesized_kl, config.synthesized_ce, config.synthesized_ce_within, taught))


def cross_entropy_within(logits: Tensor, labels: Tensor, n_known: int) -> Tensor:
    """Cross-entropy `(S, C)` of known classes over known names and of unknown classes over unknown names, mean over
    all `S`."""
    unknown = labels >= n_known
    side = torch.arange(logits.shape[1], device=logits.device) >= n_known
    return F.cross_entropy(logits.masked_fill(side[None] != unknown[:, None], -torch.inf), labels)


def teacher_distance(logits: Tensor, target: Tensor, config: OGENConfig) -> Tensor:
    """Mean distance to the teacher's logits, both `(B, C)`."""
    if config.teacher_loss == "l2":
        return logit_l2(logits, target)
    return kl_divergence(logits, target, config.temperature)


def start_teacher(config: OGENConfig, tensors: Mapping[str, Tensor], epochs: int) -> Teacher | None:
    """A teacher of `tensors`, over steps (``ema``) or epochs (``mean``, ``almt``); None where none is asked for."""
    if config.teacher == "ema":
        return EMA(tensors, decay=config.decay)
    if config.teacher == "mean":
        return MeanTeacher(tensors, decay=config.decay)
    if config.teacher == "almt":
        return AdaptiveLocalMeanTeacher(tensors, epochs, config.m_min, config.m_max, config.decay)
    return None

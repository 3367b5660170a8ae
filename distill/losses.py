"""Distillation losses between a student's and a teacher's predictions.

Notation: `C` classes, `D` embedding; `(..., C)` is any number of rows. Half-precision inputs are computed in fp32
(fp64 stays fp64); the teacher receives no gradient unless `detach_teacher=False`. Entries must be finite: a
class masked with -inf makes the loss nan.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _pair(student: Tensor, teacher: Tensor, row: str, detach_teacher: bool) -> tuple[Tensor, Tensor]:
    """Both in one dtype of at least fp32, after checks; `row` names the last dimension."""
    for who, x in (("student", student), ("teacher", teacher)):
        if not x.is_floating_point():
            raise ValueError(f"the {who}'s tensor is {x.dtype}; pass floating-point {row}")
        if x.ndim == 0 or x.numel() == 0:
            raise ValueError(f"the {who}'s tensor has shape {tuple(x.shape)}; pass at least one row of {row}")
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape; "
            f"give both the same rows and the same {row} in the same order"
        )
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), (teacher.detach() if detach_teacher else teacher).to(dtype)


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, detach_teacher: bool = True
) -> Tensor:
    """``T^2 * mean over rows of KL(teacher || student)`` of ``softmax(logits / T)``; a scalar, in nats.

    The factor `T^2` keeps gradients of the same size for every temperature (Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531). The mean is over rows only; PromptSRC's released code divides by `C` too.

    Args:
        student_logits, teacher_logits: `(..., C)`, already multiplied by the logit scale.
        temperature: T; 1 leaves the predictions as they are.

    Raises:
        ValueError: other shapes, empty or integer tensors, or a temperature that is not positive.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: must be a positive number")
    student, teacher = _pair(student_logits, teacher_logits, "logits", detach_teacher)
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def logit_l2(
    student_logits: Tensor, teacher_logits: Tensor, *, centred: bool = False, detach_teacher: bool = True
) -> Tensor:
    """Mean over rows and classes of the squared difference of logits; a scalar.

    Args:
        student_logits, teacher_logits: `(..., C)`.
        centred: take each row's mean out first, so that a constant added to a row, which changes no prediction,
            costs nothing.

    Raises:
        ValueError: other shapes, empty or integer tensors.
    """
    student, teacher = _pair(student_logits, teacher_logits, "logits", detach_teacher)
    difference = student - teacher
    if centred:
        difference = difference - difference.mean(-1, keepdim=True)
    return difference.square().mean()


def feature_cosine(student_features: Tensor, teacher_features: Tensor, *, detach_teacher: bool = True) -> Tensor:
    """Mean over rows of ``1 - cosine``; a scalar in [0, 2]. Rows need not have unit length; a zero row costs 1.

    Args:
        student_features, teacher_features: `(..., D)`.

    Raises:
        ValueError: other shapes, empty or integer tensors.
    """
    student, teacher = _pair(student_features, teacher_features, "features", detach_teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()

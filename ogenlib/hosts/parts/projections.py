"""The last linear maps of the two towers, into the shared space, and two terms on them.

Notation: `W` a tower's width, `D` embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def image_projection(model: Any) -> Tensor:
    """`(W, D)`, row-vector convention, of an open_clip model's image tower, with its gradient.

    Found: open_clip's own vision transformers, ResNets (the output map of their pooling attention; its bias is left
    out) and timm towers with a linear head.

    Raises:
        ValueError: a tower of another kind, or one that ends without such a map.
    """
    visual = model.visual
    head = getattr(getattr(visual, "head", None), "proj", None)
    pooled = getattr(getattr(visual, "attnpool", None), "c_proj", None)
    for part in (getattr(visual, "proj", None), pooled, head):
        if (matrix := _matrix(part)) is not None:
            return matrix
    raise ValueError(f"{_none('image', visual)} (ViT-B-16, RN50, ...)")


def text_projection(model: Any) -> Tensor:
    """`(W, D)`, row-vector convention, of an open_clip model's text tower, with its gradient.

    Raises:
        ValueError: a tower that ends without a linear map.
    """
    text = getattr(model, "text", model)
    for part in (getattr(text, "text_projection", None), getattr(text, "proj", None)):
        if (matrix := _matrix(part)) is not None:
            return matrix
    raise ValueError(f"{_none('text', text)} (ViT-B-16, RN50, ...)")


def joint_norm(image: Tensor, text: Tensor) -> Tensor:
    """Frobenius norm of ``V T^T``, `(W, D)` and `(W', D)`; a scalar, fp32."""
    with torch.autocast(image.device.type, enabled=False):
        return torch.linalg.matrix_norm(image.float() @ text.float().T)


def distance_to_orthogonal(image: Tensor) -> Tensor:
    """Frobenius norm of ``V^T V - I``, of `(W, D)`; a scalar, fp32."""
    with torch.autocast(image.device.type, enabled=False):
        gram = image.float().T @ image.float()
        return torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device))


def _matrix(part: Any) -> Tensor | None:
    if isinstance(part, nn.Linear):
        return part.weight.T
    return part if isinstance(part, nn.Parameter) and part.ndim == 2 else None


def _none(side: str, tower: nn.Module) -> str:
    return (
        f"the {side} tower {type(tower).__name__} ends without a linear map into the shared space, which this term is "
        "on; set its weight to 0, or take one of open_clip's own towers"
    )

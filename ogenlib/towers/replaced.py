"""A frozen model run with other tensors in place of some of its own, which stay as they are.

Notation: none; nothing here looks inside tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class _Call(nn.Module):
    """A function as a module around the modules that it uses."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def call_replaced(
    model: nn.Module, tensors: Mapping[str, Tensor], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """``function(*args, **kwargs)``, in which `model` has `tensors` instead of its own of the same names.

    The model's parameters are not written to, and gradients reach `tensors`. `function` may use the model in any way:
    through a tower, or a method of the model.

    Args:
        tensors: by the names of ``model.named_parameters()``.

    Raises:
        ValueError: a name the model does not have, another shape, or gradient checkpointing switched on in the model:
            the second forward pass would come too late and meet the model's own tensors.
    """
    for name, tensor in tensors.items():
        own = _parameter(model, name)
        if own is None or own.shape != tensor.shape:
            held = "none" if own is None else tuple(own.shape)
            raise ValueError(f"{name!r} is {tuple(tensor.shape)}, {type(model).__name__}'s is {held}")
    if torch.is_grad_enabled() and any(getattr(part, "grad_checkpointing", False) for part in model.modules()):
        raise ValueError(
            f"{type(model).__name__} recomputes its blocks in the backward pass, where replaced tensors are gone: "
            "switch it off with model.set_grad_checkpointing(False)"
        )
    named = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return torch.func.functional_call(_Call(model, function), named, args, kwargs)


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    try:
        return model.get_parameter(name)
    except AttributeError:
        return None

"""A frozen model run with other tensors in place of some of its own, which stay as they are.

Notation: none; nothing here looks inside tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ogenlib.towers.folded import folded_attention


class _Call(nn.Module):
    """A function as a module around the modules that it uses."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def call_replaced(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    function: Callable[..., Any],
    *args: Any,
    folded: bool = False,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, in which `model` has `tensors` instead of its own of the same names.

    The model's parameters are not written to, and gradients reach `tensors`. `function` may use the model in any way:
    through a tower, or a method of the model. Gradient checkpointing, where the model has it switched on, meets
    `tensors` in the second forward pass too.

    Args:
        tensors: by the names of ``model.named_parameters()``.
        folded: attention layers multiply as in `folded_attention`, in the second forward pass too: for training.

    Raises:
        ValueError: a name the model does not have, another shape, or gradient checkpointing in a part that is no
            transformer of open_clip's own.
    """
    for name, tensor in tensors.items():
        own = _parameter(model, name)
        if own is None or own.shape != tensor.shape:
            held = "none" if own is None else tuple(own.shape)
            raise ValueError(f"{name!r} is {tuple(tensor.shape)}, {type(model).__name__}'s is {held}")
    with _recomputing(model, tensors, folded):
        return _call(model, tensors, function, *args, **kwargs)


def _call(
    model: nn.Module, tensors: Mapping[str, Tensor], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    named = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return torch.func.functional_call(_Call(model, function), named, args, kwargs)


def _call_folded(
    model: nn.Module, tensors: Mapping[str, Tensor], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with folded_attention(model):
        return _call(model, tensors, function, *args, **kwargs)


@contextmanager
def _recomputing(model: nn.Module, tensors: Mapping[str, Tensor], folded: bool) -> Iterator[None]:
    """Inside, attention is `folded`, and blocks that are to be recomputed bring their replaced tensors along.

    open_clip's own checkpoints run a block again when the replaced tensors are gone, and would silently take gradients
    at the model's.
    """
    parts = [part for part in model.modules() if getattr(part, "grad_checkpointing", False)]
    if not parts or not torch.is_grad_enabled():
        with folded_attention(model) if folded else nullcontext():
            yield
        return
    strange = [type(part).__name__ for part in parts if not hasattr(part, "resblocks")]
    if strange:
        raise ValueError(
            f"{', '.join(strange)} in {type(model).__name__} recomputes activations in a way of its own, which would "
            "miss replaced tensors: switch it off with model.set_grad_checkpointing(False)"
        )
    blocks: dict[str, Any] = {
        name: block
        for name, block in model.named_modules()
        if any(block is own for part in parts for own in part.resblocks)  # type: ignore[union-attr]
    }
    try:
        for part in parts:
            part.grad_checkpointing = False  # type: ignore[assignment]
        for name, block in blocks.items():
            start = f"{name}."
            own = {n.removeprefix(start): tensor for n, tensor in tensors.items() if n.startswith(start)}
            call = _call_folded if folded else _call
            run = partial(call, block, own, partial(type(block).forward, block))
            block.forward = partial(checkpoint, run, use_reentrant=False)
        yield
    finally:
        for block in blocks.values():
            vars(block).pop("forward", None)
        for part in parts:
            part.grad_checkpointing = True  # type: ignore[assignment]


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    try:
        return model.get_parameter(name)
    except AttributeError:
        return None

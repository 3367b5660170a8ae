"""Settings of a training. Nothing heavy is imported here: the command line reads its options from this file.

Where a default is from stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ogenlib.utils.options import option

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("epochs", "steps")
PRECISIONS = ("fp32", "bf16", "fp16")
Rates = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class TrainConfig:
    """Training settings. The defaults are this library's; `CoOp`'s own are SGD, 200 epochs.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step over all processes (32 as in CoOp).
        lr: peak learning rate (2e-3 as in CoOp), where the host does not bring its own.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9).
        weight_decay: decoupled for AdamW.
        schedule: ``epochs`` as CoOp: one rate an epoch, cosine to zero over all; ``steps`` as the released code of
            WiSE-FT: linear warm-up, then cosine to zero, a new rate every step.
        warmup_epochs: with ``epochs``: constant `warmup_lr` at the start (CoOp: one epoch at 1e-5), then the cosine.
        warmup_steps: with ``steps``: steps of the linear warm-up; below 1 that share of all steps.
        rates: (regular expression, factor on lr) pairs for the names of `host.trainable()`: the first one found in a
            name counts, 0 freezes, other names have factor 1. `ogenlib.train.param_groups.layer_decay` makes some.
        grad_checkpointing: recompute the towers' activations in the backward pass: less memory, a third more time.
        precision: autocast type of the forward pass; parameters stay fp32.
        clip_grad: largest gradient norm, None for none.
        seed: of batches, views and everything a loss draws.
    """

    epochs: int = option(50, "passes over them", metavar="N")
    batch_size: int = option(32, "images a step", metavar="N")
    lr: float = option(2e-3, "peak learning rate")
    optimizer: str = option("adamw", "", choices=OPTIMIZERS)
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5
    schedule: str = "epochs"
    warmup_steps: float = 0
    rates: Rates = ()
    grad_checkpointing: bool = False
    precision: str = option("fp32", "of the forward pass", choices=PRECISIONS)
    clip_grad: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("warmup_steps", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)}: must be {low} or more")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr={self.lr}: must be a positive number")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r}: must be one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r}: must be one of {', '.join(SCHEDULES)}")
        if self.warmup_steps and self.schedule != "steps":
            raise ValueError(f"warmup_steps={self.warmup_steps}: needs schedule='steps' (this one has warmup_epochs)")
        object.__setattr__(self, "rates", check_rates(self.rates))
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}")


def check_rates(rates: Iterable[Sequence[Any]]) -> Rates:
    """The same as a tuple of (pattern, factor).

    Raises:
        ValueError: not pairs, a pattern that is no regular expression, or a factor below 0.
    """
    checked = []
    for pair in rates:
        if isinstance(pair, str) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"rates holds {pair!r}: pass (pattern, factor) pairs such as (r'^visual\\.', 0.1)")
        pattern, factor = pair
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"rates: {pattern!r} is no regular expression ({error})") from error
        if not (factor >= 0 and math.isfinite(factor)):
            raise ValueError(f"rates: the factor of {pattern!r} is {factor}; must be 0 (frozen) or more")
        checked.append((pattern, float(factor)))
    return tuple(checked)

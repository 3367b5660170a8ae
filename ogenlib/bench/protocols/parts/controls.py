"""What a trained host is measured by where names without images compete: its control, and its calibrated logits.

Notation: `N` images, `C` names, the `n_known` with images first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ogenlib.utils.variant import ZERO_SHOT

if TYPE_CHECKING:
    from ogenlib.bench.protocols.parts.plan import Outcome
    from ogenlib.hosts import Host


@dataclass(frozen=True)
class Competing:
    """How names with images and names without compete in the tests of one trained host.

    Attributes:
        zero_shot: the host that scores names without images in the control.
        constant: what calibrated stacking takes from the known names' logits; None where it could not be chosen.
        control_constant: the same for the control.
        has_control: whether there are rows of the control.
    """

    zero_shot: Host
    constant: float | None
    control_constant: float | None
    has_control: bool

    def ways(self) -> Iterator[tuple[str, float | None]]:
        """The control, "" for the host as it is, and its constant: what there are rows of."""
        yield "", self.constant
        if self.has_control:
            yield ZERO_SHOT, self.control_constant


def without_images_by_zero_shot(logits: Tensor, zero_shot: Tensor, n_known: int) -> Tensor:
    """Logits `(N, C)` of a host for the known names, and zero-shot's for the others."""
    return torch.cat([logits[:, :n_known], zero_shot[:, n_known:]], dim=1)


def said(control: str, constant: float | None) -> dict[str, Any]:
    """What a row says of them."""
    chosen = {} if constant is None else {"constant": constant}
    return {"control": control, **chosen} if control else chosen


def joined(outcomes: list[Outcome]) -> Outcome:
    """The first outcome with the rows and curves of the others."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    return replace(outcomes[0], rows=rows, stacking=[one for outcome in outcomes for one in outcome.stacking])

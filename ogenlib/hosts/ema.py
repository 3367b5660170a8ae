"""EMA of weights: full fine-tuning that ends with the moving average of its own weights.

"Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep learning
results", Tarvainen and Valpola, NeurIPS 2017. https://arxiv.org/abs/1703.01780

Reproduced: ``average <- decay * average + (1 - decay) * weights`` after every step, started at the start.
Different: the average is not a teacher: it takes the place of the weights after the last epoch, as in the baseline of
that name in papers on robust fine-tuning. ``paper`` has the paper's last decay, 0.999, and the training settings of
full fine-tuning; the default, 0.99, suits runs of some hundred steps, of which 0.999 would keep little but the start.

Notation: none beyond that of `full_ft`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ogenlib import distill
from ogenlib.data import FeatureBank
from ogenlib.hosts.base import MethodInfo
from ogenlib.hosts.full_ft import FullFT
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

DECAY, PAPER_DECAY = 0.99, 0.999


@register
class WeightEMA(FullFT):
    """Image tower and head, averaged over the steps. Measurements between epochs see the weights, not the average.

    Args:
        decay: of the average, 0 or more and below 1.
        options: those of `FullFT`.

    Raises:
        ValueError: a decay out of range, and what `FullFT` raises.
    """

    info = MethodInfo(
        "ema",
        "fine-tuning",
        "Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep "
        "learning results",
        "https://arxiv.org/abs/1703.01780",
        2017,
        title="EMA of weights",
    )

    def __init__(self, clip: ClipLike, names: Sequence[str], *args: Any, decay: float = DECAY, **options: Any) -> None:
        super().__init__(clip, names, *args, **options)
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must be 0 or more and below 1")
        self.decay = decay
        self._average: distill.EMA | None = None

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], **options: Any) -> WeightEMA:
        """A decay of 0.999; the rest as `FullFT.paper`."""
        return super().paper(clip, names, **{"decay": PAPER_DECAY, **options})

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Start the average at the weights as they are."""
        super().prepare(data, epochs, seed)
        self._average = distill.EMA(self.trainable(), self.decay)

    def on_step_end(self) -> None:
        if self._average is not None:
            self._average.update(self._average.t + 1)

    def on_epoch_end(self, epoch: int, total: int) -> None:
        """After the last epoch the average takes the weights' place."""
        if self._average is not None and epoch == total:
            self._average.copy_to()

    def training_state(self) -> dict[str, Any]:
        return {} if self._average is None else {"average": self._average.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        if self._average is not None:
            self._average.load_state_dict(state["average"])

"""LP-FT: a linear probe first, then full fine-tuning from it.

"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", Kumar et al., ICLR 2022.
https://arxiv.org/abs/2202.10054

Reproduced: the head is trained on features of the frozen tower until it fits; then head and tower are trained together,
so that the first steps do not move the tower to make up for a poor head.
Different: the head starts at the zero-shot weights (there: from a random start, or logistic regression), the probe is
trained by AdamW for `probe_epochs` at 1e-3 (there: the penalty is searched). ``paper`` has the training settings of
full fine-tuning, as comparisons on CLIP run it.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import MethodInfo
from ogenlib.hosts.full_ft import FullFT
from ogenlib.hosts.linear_probe import LR, probe
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

PROBE_EPOCHS = 20  # ours


@register
class LPFT(FullFT):
    """Image tower and head; before training, the head alone on the frozen features of the same images.

    Args:
        probe_epochs: passes over the images that train the head alone; 0 is full fine-tuning.
        probe_lr: their largest rate.
        options: those of `FullFT`.

    Raises:
        ValueError: epochs below 0, a rate that is not positive, and what `FullFT` raises.
    """

    info = MethodInfo(
        "lp_ft",
        "fine-tuning",
        "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
        "https://arxiv.org/abs/2202.10054",
        2022,
        title="LP-FT",
        aliases=("linear probe then finetune",),
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        *args: Any,
        probe_epochs: int = PROBE_EPOCHS,
        probe_lr: float = LR,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, *args, **options)
        if probe_epochs < 0:
            raise ValueError(f"probe_epochs={probe_epochs}: must be 0 or more")
        if not 0 < probe_lr < float("inf"):
            raise ValueError(f"probe_lr={probe_lr}: must be a positive number")
        self.probe_epochs, self.probe_lr = probe_epochs, probe_lr

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """The linear probe."""
        super().prepare(data, epochs, seed)
        if self.probe_epochs:
            probe(self, data, self.probe_epochs, seed, lr=self.probe_lr)

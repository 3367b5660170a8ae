"""Full fine-tuning: the image tower and a classifier head that starts at zero-shot, by cross-entropy.

"Robust fine-tuning of zero-shot models" (WiSE-FT; its end-to-end fine-tuning), Wortsman et al., CVPR 2022.
https://arxiv.org/abs/2109.01903

Reproduced: the head starts at the zero-shot weights, the text tower and the logit scale are frozen; `paper`: AdamW at
3e-5 with weight decay 0.1, 500 steps of linear warm-up and a cosine over steps, 10 epochs, batches of 512, gradients
clipped at norm 1, a head whose weights are not normalised.
Different: by default its weights count at unit length, so that names outside it stand on the same footing; and the
rates are the library's.
Mixing the result with the zero-shot model is a function on state dicts, not part of this host.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from ogenlib.hosts.base import MethodInfo
from ogenlib.hosts.parts.head import Headed
from ogenlib.hosts.parts.tuned_towers import TunedImages
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

PAPER_TRAINING: dict[str, Any] = {
    "lr": 3e-5, "optimizer": "adamw", "weight_decay": 0.1, "schedule": "steps", "warmup_steps": 500, "epochs": 10,
    "batch_size": 512, "clip_grad": 1.0,
}  # fmt: skip  # released code of WiSE-FT, args.py and README
LR = 3e-5  # the released rate; it does not depend on the size of the run as epochs and warm-up do
F_ = TypeVar("F_", bound="FullFT")


@register
class FullFT(TunedImages, Headed):
    """Image tower and head, trained by cross-entropy.

    Args:
        paper_training: `train_settings` gives the released code's settings.
        options: those of `Headed` (templates, unit_head, extra_names).

    Raises:
        ValueError: a backbone without an image tower, or a name given twice.
    """

    info = MethodInfo(
        "full_ft",
        "fine-tuning",
        "Robust fine-tuning of zero-shot models",
        "https://arxiv.org/abs/2109.01903",
        2022,
        title="Full fine-tuning",
        aliases=("FT", "full", "fine-tuning", "finetune", "full finetune", "FFT"),
    )
    published: ClassVar[dict[str, Any]] = PAPER_TRAINING

    def __init__(self, clip: ClipLike, names: Sequence[str], *args: Any, paper_training: bool = False, **options: Any):
        super().__init__(clip, names, *args, **options)
        self.paper_training = paper_training

    @classmethod
    def paper(cls: type[F_], clip: ClipLike, names: Sequence[str], **options: Any) -> F_:
        """As released: a head that is not normalised and, where the authors name them, their settings."""
        return cls(clip, names, **{"paper_training": True, "unit_head": False, **options})

    def train_settings(self) -> dict[str, Any]:
        """The released settings with `paper_training`; else the released rate and schedule with a warm-up of a tenth of
        the steps, which suits runs of any length."""
        if self.paper_training:
            return dict(self.published)
        return {"lr": LR, "weight_decay": 0.1, "schedule": "steps", "warmup_steps": 0.1, "clip_grad": 1.0}

"""Lipsum-FT: fine-tuning that keeps what the image says to texts without meaning.

"Robust Fine-Tuning of Zero-Shot Models via Random Text Guidance", Nam et al., ICLR 2024.
https://arxiv.org/abs/2404.00860

Reproduced, after the released code: 80 strings of 8 ids in every step, drawn uniformly below the two special ids and
put between start and end token, the same on all processes; the similarities of an image to them by the trained tower
and by the untouched one, both times the exponentiated scale before they are subtracted; half the mean of the squared
differences, weight 1; image tower and head are trained from the zero-shot weights, text tower and scale are frozen.
`paper`: AdamW 1e-5 without weight decay, batches of 256, 10 epochs, linear warm-up over a tenth of the steps and then a
cosine, bf16, no clipping; head weights at their own length, never normalised.
Different: by default head weights count at unit length, in training and after it, as class weights do everywhere here,
so that names outside the head stand on the same footing; with ``unit_head=False`` a weight is in both what training
made of it, and only then is the cross-entropy the released one away from the start. The features are subtracted before
the similarities are taken, which is the same number with less rounding. For tokenizers other than CLIP's see
`RandomTexts`.
The released code keeps the checkpoint that is best on test images; here the last one counts.

Notation: `B` images, `C` classes, `D` embedding, `M` strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts.base import Batch, MethodInfo, seeded
from ogenlib.hosts.parts.penalised import PenalisedFT
from ogenlib.hosts.parts.tuned_towers import whole_model
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike, RandomTexts
from ogenlib.towers.text import encode_ids

STRINGS, LENGTH = 80, 8  # released code, scripts/Lipsum-FT.py
PAPER_TRAINING: dict[str, Any] = {
    "lr": 1e-5, "optimizer": "adamw", "weight_decay": 0.0, "schedule": "steps", "warmup_steps": 0.1, "epochs": 10,
    "batch_size": 256, "precision": "bf16",
}  # fmt: skip  # the same; its 50,000 steps are 10 epochs of ImageNet


def energy_gap(z: Tensor, frozen: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """Scalar, fp32: half the mean over images and texts of ``(scale * z @ g - scale * z0 @ g)^2``.

    Args:
        z, frozen: unit image features `(B, D)` of the trained and the untouched tower, of the same pixels.
        texts: unit text features `(M, D)`.
        scale: exponentiated.
    """
    with torch.autocast(z.device.type, enabled=False):  # squares of logits: bf16 keeps two digits of them
        return (scale * (z.float() - frozen.float()) @ texts.float().T).square().mean() / 2


@register
class LipsumFT(PenalisedFT):
    """Full fine-tuning with random text guidance.

    Args:
        strings, length: `M` random strings in a step, and the random tokens of each.
        options: those of `PenalisedFT` (weight) and `FullFT` (templates, unit_head, extra_names, paper_training).

    Raises:
        ValueError: no text tower, strings that it cannot read, and what `PenalisedFT` raises.
    """

    info = MethodInfo(
        "lipsum_ft",
        "fine-tuning",
        "Robust Fine-Tuning of Zero-Shot Models via Random Text Guidance",
        "https://arxiv.org/abs/2404.00860",
        2024,
        title="Lipsum-FT",
        aliases=("Lipsum",),
    )
    published: ClassVar[dict[str, Any]] = PAPER_TRAINING
    reads_frozen: ClassVar[bool] = True
    term: ClassVar[str] = "lipsum"
    usual_weight: ClassVar[float] = 1.0  # released code; the paper's text does not say it

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        *args: Any,
        strings: int = STRINGS,
        length: int = LENGTH,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, *args, **options)
        self.strings, self.length = strings, length
        self.random_texts = RandomTexts(whole_model(clip).text, strings, length)

    @torch.no_grad()
    def random_features(self, generator: torch.Generator | None) -> Tensor:
        """Unit text features `(M, D)`, fp32, of new random strings by the frozen text tower; without a generator the
        same ones at every call."""
        ids = self.random_texts.draw(seeded(generator))
        return F.normalize(encode_ids(self.clip.text, ids), dim=-1)

    def penalty(self, batch: Batch, z: Tensor, w: Tensor) -> Tensor:
        """The `energy_gap` of this step's strings."""
        texts = self.random_features(batch.generator)
        return energy_gap(z, self.frozen_features(batch), texts, self.clip.logit_scale)

    def train_settings(self) -> dict[str, Any]:
        """The released settings with `paper_training`; else the same but for epochs, batches and precision."""
        if self.paper_training:
            return dict(self.published)
        return {name: self.published[name] for name in ("lr", "weight_decay", "schedule", "warmup_steps")}

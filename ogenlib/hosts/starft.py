"""StarFT: FLYP that keeps the zero-shot model's answers to texts about what does not matter.

"StarFT: Robust Fine-tuning of Zero-shot Models via Spuriosity Alignment", Kim et al., IJCAI 2025.
https://arxiv.org/abs/2505.13232

Reproduced: FLYP's loss plus ``r_e * KL(zero-shot || tuned)`` of every image's softmax over the batch's texts with a
spurious property injected ("a photo of a dog in the snow."), texts of the image's own class masked, both sides at the
zero-shot model's scale; ``r_e = ratio * (1 - e / E)`` in epoch `e` of `E`, so 0.5 falls to 0; settings as FLYP.
Different: the released pools of backgrounds, textures and resolutions were written by a language model for photographs;
`SPURIOSITIES` is a short list of this library's in the same three kinds, and `spuriosities` takes any other. The
authors inject the property into one fixed sentence, here into the host's templates. Phrases stand behind class names,
so images that have captions and no names (retrieval) cannot be trained on.

Notation: `B` images, `C` classes, `D` embedding, `L` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.data import FeatureBank
from ogenlib.distill import kl_divergence
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo
from ogenlib.hosts.flyp import FLYP
from ogenlib.hosts.parts.text_pool import TextPool
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import filled
from ogenlib.towers import ClipLike
from ogenlib.towers.text import encode_ids
from ogenlib.utils.distributed import gather

RATIO = 0.5  # released code, scripts/train.sh
MASKED = -1e8  # finite, so that an image whose texts are all masked costs nothing instead of nan
SPURIOSITIES = (
    "in the snow", "on a beach", "in a forest", "in a city street", "on grass", "under water", "at night",
    "against a plain wall", "with a rough texture", "with a smooth texture", "with stripes", "with dots",
    "in low resolution", "in high resolution", "out of focus", "with grain",
)  # fmt: skip


@register
class StarFT(FLYP):
    """Both towers, held to zero-shot on spurious texts.

    Args:
        spuriosities: phrases put behind the name in every template.
        ratio: of the term in the first moment; it falls to 0 over the epochs.
        options: those of `FLYP`.

    Raises:
        ValueError: no phrases, a ratio below 0, and what `FLYP` raises.
    """

    info = MethodInfo(
        "starft",
        "fine-tuning",
        "StarFT: Robust Fine-tuning of Zero-shot Models via Spuriosity Alignment",
        "https://arxiv.org/abs/2505.13232",
        2025,
        title="StarFT",
    )
    reads_names: ClassVar[bool] = True  # the phrases stand behind a name

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        spuriosities: Sequence[str] = SPURIOSITIES,
        ratio: float = RATIO,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, templates, **options)
        if isinstance(spuriosities, str) or not len(spuriosities):
            raise ValueError(f"spuriosities={spuriosities!r}: pass a list of phrases such as 'in the snow'")
        if not (ratio >= 0 and math.isfinite(ratio)):
            raise ValueError(f"ratio={ratio}: must be 0 or more (released: {RATIO})")
        self.spuriosities, self.ratio = tuple(spuriosities), ratio
        injected = [filled(self.anchor.templates, [f"{n} {s}" for s in self.spuriosities]) for n in self.names]
        self.spurious = TextPool(self.text_tower, injected)
        self._epoch, self._epochs = 1, 0

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``contrastive`` and ``spurious``, already weighted; without a weight it is left out."""
        z = self.image_features(batch) if z is None else z
        terms = super().losses(batch, z=z, w=w)
        ratio = self.ratio * (1 - self._epoch / self._epochs) if self._epochs else self.ratio
        if ratio <= 0:
            return terms
        ids = self.spurious.draw(batch)
        with torch.no_grad():
            t = F.normalize(encode_ids(self.clip.text, ids, self.chunk), dim=-1)
            before = self._asked(self.frozen_features(batch), t, batch)
        after = self._asked(z, self.encode_ids(ids), batch)
        return {**terms, "spurious": ratio * kl_divergence(after, before)}

    def _asked(self, z: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Logits of the whole batch's images over its texts, those of the same class masked."""
        labels = gather(batch.labels, batch.total)
        logits = self.clip.logit_scale * gather(z, batch.total) @ gather(t, batch.total).T
        return logits.masked_fill(labels[:, None] == labels, MASKED)

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Start the schedule of the ratio."""
        super().prepare(data, epochs, seed)
        self._epoch, self._epochs = 1, epochs

    def on_epoch_end(self, epoch: int, total: int) -> None:
        self._epoch = epoch + 1

    def training_state(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self._epoch = state["epoch"]

"""FLYP: both towers, fine-tuned with the loss they were pretrained with.

"Finetune like you pretrain: Improved finetuning of zero-shot vision models", Goyal et al., CVPR 2023.
https://arxiv.org/abs/2212.00638

Reproduced: symmetric contrastive loss between the images of a batch and a text each, drawn from the templates filled
with the image's class; another image of the same class is a negative like all others; class weights come from the
trained text tower; ``paper``: AdamW at 1e-5, weight decay 0.1, batches of 512, 10 epochs, 500 steps of warm-up and a
cosine over steps.
Different: the logit scale is not trained, so that logits mean the same for every host; the towers stay in eval mode;
`texts` may give each name its own texts (captions); the released code keeps every epoch's weights to choose from, here
the last epoch's count.

Notation: `B` images, `C` classes, `D` embedding, `L` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo
from ogenlib.hosts.parts.contrastive import info_nce
from ogenlib.hosts.parts.text_pool import TextPool, Texts, class_texts
from ogenlib.hosts.parts.tuned_towers import TunedTowers
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike
from ogenlib.towers.text import encode_ids
from ogenlib.utils.distributed import gather

LR = 1e-5  # released code, README
F_ = TypeVar("F_", bound="FLYP")


@register
class FLYP(TunedTowers):
    """Both towers, trained with images and their texts.

    Args:
        templates: of the class weights and, without `texts`, of the training texts.
        chunk: texts encoded at a time for class weights.
        texts: name -> its texts, one of which is drawn for an image at every step; None for the templates.
        paper_training: `train_settings` gives the released code's settings.

    Raises:
        ValueError: a name without texts, a text that is too long, a backbone without towers.
    """

    info = MethodInfo(
        "flyp",
        "fine-tuning",
        "Finetune like you pretrain: Improved finetuning of zero-shot vision models",
        "https://arxiv.org/abs/2212.00638",
        2022,
        title="FLYP",
        aliases=("finetune like you pretrain",),
    )
    published: ClassVar[dict[str, Any]] = {
        "lr": 1e-5,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "schedule": "steps",
        "warmup_steps": 500,
        "epochs": 10,
        "batch_size": 512,
    }

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        chunk: int = 256,
        texts: Texts | None = None,
        paper_training: bool = False,
    ) -> None:
        super().__init__(clip, names, templates, chunk=chunk)
        self.texts = None if texts is None else {name: list(texts[name]) for name in self.names if name in texts}
        self.pool = TextPool(self.text_tower, class_texts(self.names, texts, self.anchor.templates))
        self.paper_training = paper_training

    @classmethod
    def paper(cls: type[F_], clip: ClipLike, names: Sequence[str], **options: Any) -> F_:
        """The released settings for ImageNet."""
        return cls(clip, names, **{"paper_training": True, **options})

    def encode_ids(self, ids: Tensor) -> Tensor:
        """Unit features, fp32, of token ids `(B, L)` by the trained text tower."""
        return F.normalize(encode_ids(self.text_tower, ids, self.chunk), dim=-1)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``contrastive``, over the whole batch of all processes."""
        z = self.image_features(batch) if z is None else z
        t = self.encode_ids(self.pool.draw(batch))
        images, texts = gather(z, batch.total), gather(t, batch.total)
        return {"contrastive": info_nce(images, texts, self.clip.logit_scale)}

    def train_settings(self) -> dict[str, Any]:
        """The released settings with `paper_training`; else the released rate and decay with a warm-up of a tenth of
        the steps."""
        if self.paper_training:
            return dict(self.published)
        return {"lr": LR, "weight_decay": 0.1, "schedule": "steps", "warmup_steps": 0.1}

"""ARF: fine-tuning with richer texts and with pairs like those of pretraining as anchors.

"Anchor-based Robust Finetuning of Vision-Language Models", Han et al., CVPR 2024.
https://arxiv.org/abs/2404.06244

Reproduced: both towers are trained with CLIP's contrastive loss on (image, class text), on (image, caption of the
image) and on (retrieved image, retrieved text); captions and retrieved pairs are made before training
(`ogenlib.anchors`); class weights come from the trained text tower.
Not known, for neither summaries of the paper nor its empty repository say: weights of the terms (here 1), size of the
batch of retrieved pairs (that of the images), how many pairs are retrieved and which are kept (`ogenlib.anchors`), and
the settings of training, for which `paper` takes FLYP's, the likely ground it stands on.
Different: as for `FLYP`. Without captions and anchors this is FLYP.

Notation: `B` images, `A` retrieved pairs of a step, `D` embedding, `L` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ogenlib.anchors.captioner import describe_captions
from ogenlib.anchors.retrieve import AnchorPairs
from ogenlib.data import FeatureBank
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo
from ogenlib.hosts.flyp import FLYP
from ogenlib.hosts.parts.contrastive import REPEATS, info_nce
from ogenlib.hosts.parts.text_pool import TextPool
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike
from ogenlib.utils import distributed


@register
class ARF(FLYP):
    """Both towers, trained with class texts, captions and retrieved pairs.

    A saved run opens without captions and anchors, which only training needs.

    Args:
        captions: key of a training image -> its texts, one of which is drawn at every step; it may hold other keys.
            None leaves the term out.
        anchors: retrieved pairs (`AnchorPairs.load`); None leaves the term out.
        caption_weight, anchor_weight: of the two terms; that of (image, class text) is 1.
        anchor_batch: `A`; None for as many as the step has images. Never more than there are.
        repeats: what pairs of a batch with the same text (class texts: of the same class) are to each other, see
            `info_nce`; the default ``negatives`` is FLYP's, which makes no difference between them and others.
        made_with: what `config()` says of captions and anchors of a saved run; not for use by hand.
        options: those of `FLYP` (texts, chunk, paper_training).

    Raises:
        ValueError: a weight below 0, `anchor_batch` below 2, another `repeats`, and what `FLYP` raises; in training
            an image without a caption, or a caption that is too long.
    """

    info = MethodInfo(
        "arf",
        "fine-tuning",
        "Anchor-based Robust Finetuning of Vision-Language Models",
        "https://arxiv.org/abs/2404.06244",
        2024,
        title="ARF",
        aliases=("anchor-based robust finetuning",),
    )
    unsaved: ClassVar[frozenset[str]] = frozenset(("captions", "anchors"))  # `made_with` says which

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        captions: Mapping[str, str | Sequence[str]] | None = None,
        anchors: AnchorPairs | None = None,
        caption_weight: float = 1.0,
        anchor_weight: float = 1.0,
        anchor_batch: int | None = None,
        repeats: str = "negatives",
        made_with: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, templates, **options)
        for name, weight in (("caption_weight", caption_weight), ("anchor_weight", anchor_weight)):
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"{name}={weight}: must be 0 or more (1 counts as much as the class texts)")
        if anchor_batch is not None and anchor_batch < 2:
            raise ValueError(f"anchor_batch={anchor_batch}: must be 2 or more, or None for as many as there are images")
        if repeats not in REPEATS:
            raise ValueError(f"repeats={repeats!r}: must be one of {', '.join(REPEATS)}")
        self.caption_weight, self.anchor_weight = caption_weight, anchor_weight
        self.anchor_batch, self.repeats = anchor_batch, repeats
        self.captions, self.anchors = captions, anchors
        given = {
            "captions": None if captions is None else describe_captions(captions),
            "anchors": None if anchors is None else anchors.describe(),
        }
        self.made_with = dict(given if made_with is None else made_with)
        self._captions: TextPool | None = None
        self._anchor_texts: TextPool | None = None
        if anchors is not None:
            anchors.pixels.check_preprocess(clip)  # type: ignore[arg-type]
            texts = [anchors.captions[key] for key in anchors.pixels.keys]
            self._anchor_texts = TextPool(self.text_tower, texts)

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Find the captions of the training images.

        Raises:
            ValueError: an image without a caption, or a saved run that was trained with what is not here.
        """
        super().prepare(data, epochs, seed)
        told = [what for what in ("captions", "anchors") if self.made_with.get(what) is not None]
        missing = [what for what in told if getattr(self, what) is None]
        if missing:
            raise ValueError(
                f"this run was made with {' and '.join(missing)}, which a saved run does not hold; to train on, build "
                f"the host again with {'=..., '.join(missing)}=..."
            )
        if self.captions is None:
            return
        silent = [key for key in data.keys if not self.captions.get(key)]
        if silent:
            raise ValueError(
                f"captions has none for {len(silent)} of {len(data)} training images, the first {silent[:3]}; its keys "
                "must be those of the bank (caption_table(images, captioner))"
            )
        texts = (self.captions[key] for key in data.keys)
        self._captions = TextPool(self.text_tower, [[t] if isinstance(t, str) else list(t) for t in texts])

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``contrastive`` (class texts), ``captions`` and ``anchors``, already weighted, over the whole batch of all
        processes; terms of weight 0 are left out.

        Raises:
            RuntimeError: `prepare` was not called (`ogenlib.fit` does).
        """
        z = self.image_features(batch) if z is None else z
        terms = {"contrastive": self._contrast(z, self.pool.draw(batch), batch.total, batch.labels)}
        if self.captions is not None and self.caption_weight:
            if self._captions is None or batch.rows is None:
                raise RuntimeError("ARF does not know which captions belong to this batch; train with ogenlib.fit")
            ids = self._captions.draw(replace(batch, labels=batch.rows))
            terms["captions"] = self.caption_weight * self._contrast(z, ids, batch.total)
        if self.anchors is not None and self.anchor_weight:
            terms["anchors"] = self.anchor_weight * self._anchor_term(batch)
        return terms

    def _contrast(
        self, z: Tensor, ids: Tensor, total: int | None, labels: Tensor | None = None, share: float = 1.0
    ) -> Tensor:
        """The loss of images and texts `(B, L)`; pairs repeat each other by their labels, or else by their texts."""
        images = distributed.gather(_scaled_gradient(z, share), total)
        texts = distributed.gather(_scaled_gradient(self.encode_ids(ids), share), total)
        same = None
        if self.repeats != "negatives":
            says = ids if labels is None else labels[:, None]
            says = distributed.gather(says.to(images.device), total)
            same = (says[:, None] == says[None]).all(-1)
        return info_nce(images, texts, self.clip.logit_scale, same=same, repeats=self.repeats)

    def _anchor_term(self, batch: Batch) -> Tensor:
        """The loss of `A` retrieved pairs, drawn without repeats for the whole step."""
        assert self._anchor_texts is not None
        own, share = self._drawn(batch)
        return self._contrast(self.image_features(own), self._anchor_texts.draw(own), own.total, share=share)

    def _drawn(self, batch: Batch) -> tuple[Batch, float]:
        """This process's retrieved pairs, their indices as labels, and its part of them over its part of the images.

        Drawn from the batch's generator alone: the same seed draws the same pairs, also after a restart and whatever
        the number of processes. Without one, the first pairs in their first view.
        """
        assert self.anchors is not None
        bank, draws = self.anchors.pixels, batch.generator
        images = batch.total or len(batch.labels)
        count = min(self.anchor_batch or images, len(bank))
        if draws is None:
            pairs, views = torch.arange(count), torch.zeros(count, dtype=torch.long)
        else:
            pairs, views = torch.randperm(len(bank), generator=draws)[:count], bank.draw(count, draws)
        mine = distributed.share(torch.arange(count))
        pixels = bank.pixels(pairs[mine], views[mine])
        own = Batch(pairs[mine], pixels=pixels, generator=draws, total=count)
        return own, (len(mine) / count) / (len(batch.labels) / images)


def _scaled_gradient(features: Tensor, factor: float) -> Tensor:
    """`features`, whose gradient is multiplied: training weighs a process by its part of the images."""
    return features if factor == 1 else features.detach() + factor * (features - features.detach())

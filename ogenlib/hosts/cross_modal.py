"""Cross-modal linear probe: class names in sentences are training samples of the classifier, as images are.

"Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models", Lin et al., CVPR 2023.
https://arxiv.org/abs/2301.06267

Reproduced: one linear head, started at zero-shot, is trained by cross-entropy on image features and, with the same
weight, on the text features of the class names; a text sample is one name in one template.
Different: the head's weights are normalised (the released one's are so at the start only) and scaled by the model's
own scale (ln 100 in log space is the released logit); a step takes its images and `text_rows` texts, not half a batch
of each; rate 1e-3 and the library's weight decay, batches and epochs, where the released code searches rate, decay
and batch on a validation set, stops early on it and may mix the result with zero-shot.
New names keep their zero-shot weights.

Notation: `B` images, `C` classes, `D` embedding, `S` texts of a step, `T` templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo
from ogenlib.hosts.parts.class_vectors import ClassResiduals
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import zero_shot_weights
from ogenlib.towers import ClipLike

LR = 1e-3  # the larger of the two rates that the released code searches
TEXT_ROWS = 32  # as many as the library's batch holds images


@register
class CrossModal(ClassResiduals):
    """Class weights ``unit(t + x)``, trained on images and on class names.

    Args:
        templates: of the zero-shot weights ``t`` and of the text samples.
        extra_names: see `ClassResiduals`. Their texts are samples too.
        text_rows: `S`; drawn alike on every process, so dividing a batch does not change the step.

    Raises:
        ValueError: `text_rows` below 1, or a name given twice.
    """

    info = MethodInfo(
        "cross_modal",
        "adapter",
        "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models",
        "https://arxiv.org/abs/2301.06267",
        2023,
        title="Cross-modal probe",
        aliases=("cross-modal adaptation",),
    )

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        extra_names: Sequence[str] = (),
        text_rows: int = TEXT_ROWS,
    ) -> None:
        super().__init__(clip, names, templates, extra_names=extra_names)
        if text_rows < 1:
            raise ValueError(f"text_rows={text_rows}: must be 1 or more (taskres is trained without texts)")
        self.text_rows = text_rows
        self._texts: Tensor | None = None

    @torch.no_grad()
    def texts(self) -> Tensor:
        """Unit text features `(T, R, D)`: every name with a vector in every template."""
        if self._texts is None:
            with torch.autocast(self.device.type, enabled=False):
                own = [zero_shot_weights(self.clip, self.vector_names, t) for t in self.anchor.templates]
                self._texts = torch.stack(own)
        return self._texts.to(self.device)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce`` of the images over the training names and ``text_ce`` over all names with a vector, half of each.

        Without a generator in the batch every text is taken once.
        """
        image = super().losses(batch, z=z, w=w)["ce"]
        texts = self.texts()
        labels = torch.arange(texts.shape[1], device=texts.device).repeat(len(texts))
        samples = texts.flatten(0, 1)
        if batch.generator is not None:
            drawn = torch.randint(len(samples), (self.text_rows,), generator=batch.generator).to(samples.device)
            samples, labels = samples[drawn], labels[drawn]
        if w is None or self.extra_names:
            w = self.class_weights(self.vector_names)
        return {"ce": image / 2, "text_ce": F.cross_entropy(self.logits(samples, w), labels) / 2}

    def train_settings(self) -> dict[str, Any]:
        """A rate that the released code searches."""
        return {"lr": LR}

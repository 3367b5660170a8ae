"""PromptSRC: prompts in both towers, held near the frozen model's features and predictions, averaged over epochs.

"Self-regulating Prompts: Foundational Model Adaptation without Forgetting", Khattak et al., ICCV 2023.
https://arxiv.org/abs/2307.06948

Reproduced: IVLP with 4 + 4 tokens in 9 layers; cross-entropy, 25 times the mean absolute difference of text features
to the frozen template ensemble, 10 times that of image features to the frozen ones of the same pixels, and
KL(zero-shot || prompted) divided by images and classes; after the last epoch the mean of the epochs' prompts under a
bell around epoch 15 of 20.
Different: the templates are those given (`paper`: CLIP's 80 for ImageNet, of which the released code uses 60), averaged
at unit length (there: before normalising); only the prompts are averaged (there: the whole model in fp16); the frozen
features come from the same model with the prompts left out (there: a second copy); and what `IVLP` says.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from ogenlib.data import FeatureBank
from ogenlib.distill import GaussianPromptAverage, kl_divergence
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo
from ogenlib.hosts.ivlp import IVLP
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import Anchored, ZeroShotAnchor
from ogenlib.towers import Backbone

TEXT_WEIGHT, IMAGE_WEIGHT, LOGIT_WEIGHT = 25.0, 10.0, 1.0  # released code, configs/trainers/PromptSRC


@register
class PromptSRC(Anchored, IVLP):
    """Self-regulated prompts.

    Args:
        templates: of the frozen text features, several to average.
        text_weight, image_weight, logit_weight: of the three terms that hold it near the frozen model; all 0 is IVLP.
        average: whether the prompts after the last epoch are the weighted mean over epochs.
        mu, sigma: centre and width of the weights in epochs; None for 0.75 and 0.05 of the number of epochs
            (15 and 1 of 20, as released; its few-shot runs of 50 epochs take 30 and 30, or 45 and 5).
        options: those of `IVLP`.

    Raises:
        ValueError: a negative weight, `mu` or `sigma` that is no width or centre, and what `IVLP` raises.
    """

    info = MethodInfo(
        "promptsrc",
        "prompt",
        "Self-regulating Prompts: Foundational Model Adaptation without Forgetting",
        "https://arxiv.org/abs/2307.06948",
        2023,
        title="PromptSRC",
    )
    published: ClassVar[dict[str, Any]] = {"lr": 2.5e-3, "optimizer": "sgd", "epochs": 20, "batch_size": 4}
    usual_tokens: ClassVar[int] = 4
    usual_depth: ClassVar[int] = 9

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        text_weight: float = TEXT_WEIGHT,
        image_weight: float = IMAGE_WEIGHT,
        logit_weight: float = LOGIT_WEIGHT,
        average: bool = True,
        mu: float | None = None,
        sigma: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clip, names, context, **options)
        self.text_weight, self.image_weight, self.logit_weight = text_weight, image_weight, logit_weight
        for name in ("text_weight", "image_weight", "logit_weight"):
            weight = getattr(self, name)
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"{name}={weight}: must be 0 or more (released: {TEXT_WEIGHT}, {IMAGE_WEIGHT}, 1)")
        if mu is not None and not math.isfinite(mu):
            raise ValueError(f"mu={mu}: must be a number, the epoch that weighs most, or None for 3/4 of the epochs")
        if sigma is not None and not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma={sigma}: must be a positive number of epochs, or None for 1/20 of them")
        self.average, self.mu, self.sigma = average, mu, sigma
        self.anchor = ZeroShotAnchor(clip, templates)
        self._mean: GaussianPromptAverage | None = None

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> PromptSRC:
        """4 + 4 tokens, 9 layers, CLIP's ImageNet templates, SGD 2.5e-3, 20 epochs, batches of 4."""
        templates = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
        return cls(clip, names, **{"paper_training": True, "templates": templates, **options})

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce``, ``text``, ``image`` and ``logits``, already weighted; terms of weight 0 are left out."""
        z = self.image_features(batch) if z is None else z
        w = self.class_weights() if w is None else w
        logits = self.logits(z, w)
        terms = {"ce": F.cross_entropy(logits, batch.labels)}
        text, image, logit = self.text_weight, self.image_weight, self.logit_weight
        anchor = self.anchor(self.names)
        if text:
            terms["text"] = text * F.l1_loss(w, anchor)
        if image or logit:
            frozen = self.frozen_features(batch)
            if image:
                terms["image"] = image * F.l1_loss(z, frozen)
            if logit:
                reference = self.logits(frozen, anchor)
                terms["logits"] = logit * kl_divergence(logits, reference) / len(self.names)
        return terms

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Start the average over epochs."""
        super().prepare(data, epochs, seed)
        self._mean = None
        if self.average:
            self._mean = GaussianPromptAverage(self.trainable(), epochs, self.mu, self.sigma)

    def on_epoch_end(self, epoch: int, total: int) -> None:
        """Take this epoch's prompts; after the last epoch the average takes their place."""
        if self._mean is not None:
            self._mean.update(epoch)
            if epoch == total:
                self._mean.copy_to()

    def training_state(self) -> dict[str, Any]:
        return {} if self._mean is None else {"average": self._mean.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        if self._mean is not None:
            self._mean.load_state_dict(state["average"])

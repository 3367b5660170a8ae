"""CoCoOp: CoOp whose context moves with the image.

"Conditional Prompt Learning for Vision-Language Models", Zhou et al., CVPR 2022. https://arxiv.org/abs/2203.05557

Reproduced: every context token is ``v_m + pi(z)``, where pi is two linear maps with biases and a ReLU between them,
of hidden width D/16, on the unit image feature; class name at the end; cross-entropy over the training names.
Different: batches of any size (the released code loops over the images and is run with batches of one); images share
the computation of nothing but what is exactly shared (start token and context once for all classes of an image), and
many images are encoded a few at a time, recomputed in backward, so memory stays that of the few. Weights without an
image, which the paper does not have, take ``pi`` at the mean training feature. Context and maps are kept in fp32 and
trained with this library's settings; the authors run SGD 0.002 for 10 epochs with batches of 1.

Notation: `B` images, `C` classes, `D` embedding, `H` hidden width, `M` context tokens, `W` text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import MethodInfo, seeded
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.parts.bottleneck import bottleneck, linear
from ogenlib.hosts.registry import register
from ogenlib.towers import Backbone, PromptTokens, encode_prompts

REDUCTION = 16  # released code, trainers/cocoop.py
MAX_PROMPTS = 1024  # images times classes encoded at a time: some 2 GB of activations in ViT-B/16's text tower


@register
class CoCoOp(CoOp):
    """Learned context for the text side, shifted by a small network on the image feature.

    Args:
        image_chunk: images encoded at a time; None for as many as make `MAX_PROMPTS` prompts.
        options: those of `CoOp`, without `class_specific`.

    Attributes:
        centre: `(D,)` mean training feature, set by `prepare`; zero before.

    Raises:
        ValueError: an `image_chunk` below 1, and what `CoOp` raises.
    """

    info = MethodInfo(
        "cocoop",
        "prompt",
        "Conditional Prompt Learning for Vision-Language Models",
        "https://arxiv.org/abs/2203.05557",
        2022,
        title="CoCoOp",
    )
    centre: Tensor

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        position: str = "end",
        chunk: int | None = None,
        image_chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, context, n_context=n_context, position=position, chunk=chunk, generator=generator)
        if image_chunk is not None and image_chunk < 1:
            raise ValueError(f"image_chunk={image_chunk}: must be 1 or more, or None to choose by memory")
        self.image_chunk = image_chunk
        width, source = clip.embed_dim, seeded(generator)
        hidden = max(1, width // REDUCTION)
        self.down = linear(width, hidden, source=source).to(clip.device)
        self.up = linear(hidden, clip.text.width, source=source).to(clip.device)
        self.register_buffer("centre", torch.zeros(width, device=clip.device))

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> CoCoOp:
        """4 tokens from "a photo of a" (SGD 0.002, 10 epochs, batches of 1)."""
        return cls(clip, names, **{"context": "a photo of a", **options})

    def shift(self, z: Tensor) -> Tensor:
        """What the image adds to every context token, `(..., W)` of `z` `(..., D)`."""
        return bottleneck(z, self.down.weight, self.up.weight, self.down.bias, self.up.bias).float()

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(B, C, D)` for images `z` `(B, D)`; else `(C, D)`, those of the mean training feature."""
        tokens = self._tokens(self.names if names is None else tuple(names))
        if z is None:
            context = self.context + self.shift(self.centre)
            features = encode_prompts(self.clip.text, tokens, context, chunk=self.chunk)
            return F.normalize(features.float(), dim=-1)
        many = self.image_chunk or max(1, MAX_PROMPTS // len(tokens.ids))
        if len(z) <= many:
            return self._weights(z, tokens)
        if torch.is_grad_enabled():
            pieces = [
                checkpoint(self._weights, part, tokens, use_reentrant=False, preserve_rng_state=False)
                for part in z.split(many)
            ]
        else:
            pieces = [self._weights(part, tokens) for part in z.split(many)]
        return torch.cat(pieces)

    def _weights(self, z: Tensor, tokens: PromptTokens) -> Tensor:
        context = self.context + self.shift(z)[:, None]
        features = encode_prompts(self.clip.text, tokens, context, per_image=True, chunk=self.chunk)
        return F.normalize(features.float(), dim=-1)

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Keep the mean training feature over all views."""
        self.centre.copy_(F.normalize(data.features.float(), dim=-1).mean((0, 1)))

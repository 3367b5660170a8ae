"""Training steps as the released loops take them, against open_clip's own modules: what `speed/coop.py` compares with.

All 77 tokens of every class through the text tower, fresh images through the image tower, nothing shared or kept. Where
this library's method differs from the released one (visual tokens join behind `ln_pre`, frozen text features are those
of the same templates), the textbook here does as the library, so that both compute the same numbers.

Notation: `B` images, `C` classes, `D` embedding, `M` context tokens, `V` visual tokens, `W` width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts import CoCoOp, PromptSRC
from ogenlib.towers import Backbone

CONTEXT = "a photo of a"


class Textbook:
    """CoOp (trainers/coop.py of its code): a context in front of every name."""

    def __init__(self, clip: Backbone, names: list[str]) -> None:
        self.clip, model = clip, clip.model
        self.ids = clip.tokenizer([f"{CONTEXT} {name}." for name in names])
        with torch.no_grad():
            embedding = model.token_embedding(self.ids)
        self.context = nn.Parameter(embedding[0, 1:5].clone())
        self.prefix, self.suffix = embedding[:, :1], embedding[:, 5:]

    def parameters(self) -> list[nn.Parameter]:
        return [self.context]

    def embedded(self, context: Tensor) -> Tensor:
        """`(C, 77, W)`: the prompts with positions, `context` `(M, W)` in place of its words."""
        x = torch.cat([self.prefix, context.expand(len(self.ids), -1, -1), self.suffix], 1)
        return x + self.clip.model.positional_embedding

    def pooled(self, x: Tensor) -> Tensor:
        """Unit rows `(C, D)` of what left the last block."""
        model = self.clip.model
        x = model.ln_final(x)[torch.arange(len(x)), self.ids.argmax(-1)] @ model.text_projection
        return F.normalize(x, dim=-1)

    def class_weights(self) -> Tensor:
        model = self.clip.model
        return self.pooled(model.transformer(self.embedded(self.context), attn_mask=model.attn_mask))

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        z = F.normalize(self.clip.model.encode_image(pixels), dim=-1)
        return F.cross_entropy(self.clip.logit_scale * z @ self.class_weights().T, labels)


class TextbookCoCoOp(Textbook):
    """CoCoOp (trainers/cocoop.py of its code): every image has its own prompts, encoded image after image."""

    def __init__(self, clip: Backbone, names: list[str], ours: CoCoOp) -> None:
        super().__init__(clip, names)
        self.net = nn.Sequential(copy.deepcopy(ours.down), nn.ReLU(), copy.deepcopy(ours.up))

    def parameters(self) -> list[nn.Parameter]:
        down, up = self.net[0], self.net[2]
        return [self.context, *down.parameters(), *up.parameters()]

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        model = self.clip.model
        with torch.no_grad():
            z = F.normalize(model.encode_image(pixels), dim=-1)
        rows = []
        for feature, shift in zip(z, self.net(z), strict=True):
            w = self.pooled(model.transformer(self.embedded(self.context + shift), attn_mask=model.attn_mask))
            rows.append(self.clip.logit_scale * feature @ w.T)
        return F.cross_entropy(torch.stack(rows), labels)


class TextbookPromptSRC(Textbook):
    """PromptSRC (trainers/promptsrc.py of its code): prompts in both towers, and a frozen pass over the same images."""

    def __init__(self, clip: Backbone, names: list[str], ours: PromptSRC) -> None:
        super().__init__(clip, names)
        assert ours.deep_context is not None
        self.deep = nn.Parameter(ours.deep_context.detach().clone())
        self.visual = nn.Parameter(ours.visual.detach().clone())
        self.frozen_text = clip.encode_text([f"{CONTEXT} {name}." for name in names])  # once, as there

    def parameters(self) -> list[nn.Parameter]:
        return [self.context, self.deep, self.visual]

    def class_weights(self) -> Tensor:
        model, end = self.clip.model, 1 + len(self.context)
        x = self.embedded(self.context)
        for i, block in enumerate(model.transformer.resblocks):
            if 1 <= i <= len(self.deep):
                x = torch.cat([x[:, :1], self.deep[i - 1].expand(len(x), -1, -1), x[:, end:]], 1)
            x = block(x, attn_mask=model.attn_mask)
        return self.pooled(x)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Unit rows `(B, D)` with prompts."""
        visual = self.clip.model.visual
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
        x = visual.ln_pre(x)
        own = x.shape[1]
        for i, block in enumerate(visual.transformer.resblocks):
            if i < len(self.visual):
                x = torch.cat([x[:, :own], self.visual[i].expand(len(x), -1, -1)], 1)
            x = block(x)
        return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        w, z, scale = self.class_weights(), self.image_features(pixels), self.clip.logit_scale
        with torch.no_grad():
            frozen = F.normalize(self.clip.model.encode_image(pixels), dim=-1)
            reference = (scale * frozen @ self.frozen_text.T).log_softmax(1)
        logits = scale * z @ w.T
        near = F.kl_div(logits.log_softmax(1), reference, reduction="sum", log_target=True) / logits.numel()
        held = 25 * F.l1_loss(w, self.frozen_text) + 10 * F.l1_loss(z, frozen)
        return F.cross_entropy(logits, labels) + held + near

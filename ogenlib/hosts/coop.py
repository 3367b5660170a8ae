"""CoOp: learned context tokens in place of hand-written words.

"Learning to Prompt for Vision-Language Models", Zhou et al., IJCV 2022. https://arxiv.org/abs/2109.01134

Reproduced: M learned tokens started from words or at random (normal, std 0.02), shared by all classes or one
context a class, class name at the end, in the middle or in front; cross-entropy over the training names.
Different: the context is kept in fp32 (the released code trains it in fp16), classes share the computation of
the common prefix (exact), images may come from a feature bank. Presets: `CoOp.paper` (16 random tokens),
`CoOp.base_to_new` (4 tokens from "a photo of a", as CoCoOp's base-to-new tables run it).

Notation: `C` classes, `D` embedding, `M` context tokens, `W` text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import Host, MethodInfo
from ogenlib.hosts.registry import register
from ogenlib.towers import Backbone, PromptTokens, context_from_words, encode_prompts, prompt_tokens

INIT_STD = 0.02  # released code, trainers/coop.py
PAPER_LR = 2e-3  # for embeddings of that size: CLIP's token embeddings start with the same std
MAX_CACHED_PROMPTS = 8  # token tables kept; training uses one or two lists of names


@register
class CoOp(Host):
    """Learned context for the text side.

    Args:
        context: words that start the context ("a photo of a"), or None for a random start.
        n_context: number of tokens for a random start; with words it must match them or be left out.
        position: where the class name stands: ``end``, ``middle`` or ``front``.
        class_specific: one context for every training name; such a host knows no other names.
        chunk: classes encoded at a time, to bound memory; None for all at once.
        generator: of the random start.

    Raises:
        ValueError: `n_context` contradicts the words, or a prompt does not fit the text tower.
    """

    info = MethodInfo(
        "coop",
        "prompt",
        "Learning to Prompt for Vision-Language Models",
        "https://arxiv.org/abs/2109.01134",
        2022,
        title="CoOp",
    )

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        position: str = "end",
        class_specific: bool = False,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names)
        if context is None:
            count = 16 if n_context is None else n_context
            if count < 1:
                raise ValueError(f"n_context={n_context}: at least one token is needed")
            start = INIT_STD * torch.randn(count, clip.text.width, generator=generator)
        else:
            start = context_from_words(clip.text, context).cpu()
            if n_context is not None and n_context != len(start):
                raise ValueError(
                    f"context {context!r} is {len(start)} tokens long but n_context={n_context}; "
                    "leave n_context out, or pass context=None for a random start"
                )
        self.position, self.class_specific, self.chunk, self.words = position, class_specific, chunk, context
        if class_specific:
            start = start.expand(len(self.names), -1, -1)
            if context is None:
                start = INIT_STD * torch.randn(start.shape, generator=generator)
        self.context = nn.Parameter(start.clone().float().to(clip.device))
        self._prompts: dict[tuple[str, ...], PromptTokens] = {}
        self._tokens(self.names)  # refuses prompts that do not fit before any training

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> CoOp:
        """16 random tokens, class name at the end (the paper's M=16; SGD 0.002, 200 epochs, batch 32)."""
        return cls(clip, names, **{"context": None, "n_context": 16, **options})

    @classmethod
    def base_to_new(cls, clip: Backbone, names: Sequence[str], **options: Any) -> CoOp:
        """4 tokens started from "a photo of a", the base-to-new setting."""
        return cls(clip, names, **{"context": "a photo of a", **options})

    @classmethod
    def dataset_options(cls, templates: Sequence[str]) -> dict[str, Any]:
        """The words before the name in the first template, as first context."""
        return {"context": templates[0].split("{}")[0].strip() or "a photo of a"}

    def reference_templates(self) -> tuple[str, ...]:
        """The words it started from, before the name; the default for a random start."""
        return super().reference_templates() if self.words is None else (f"{self.words} {{}}.",)

    @property
    def n_context(self) -> int:
        """`M`."""
        return self.context.shape[-2]

    def _tokens(self, names: tuple[str, ...]) -> PromptTokens:
        if names not in self._prompts:
            if len(self._prompts) >= MAX_CACHED_PROMPTS:
                self._prompts.pop(next(iter(self._prompts)))
            self._prompts[names] = prompt_tokens(self.clip.text, names, self.n_context, position=self.position)
        return self._prompts[names]

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` of the names behind the learned context.

        Raises:
            ValueError: class-specific context was trained for other names.
        """
        names = self.names if names is None else tuple(names)
        context: Tensor = self.context
        if self.class_specific:
            unknown = [n for n in names if n not in self.names]
            if unknown:
                raise ValueError(
                    f"class-specific context was trained for {len(self.names)} names and has none for "
                    f"{unknown[:3]}; train with class_specific=False to classify other names"
                )
            indices = torch.tensor([self.names.index(n) for n in names], device=context.device)
            context = context[indices]
        features = encode_prompts(self.clip.text, self._tokens(names), context, chunk=self.chunk)
        return F.normalize(features.float(), dim=-1)

    def train_settings(self) -> dict[str, Any]:
        """The paper's learning rate, scaled by how large the names' token embeddings are.

        AdamW moves every coordinate by about the learning rate, whatever the gradient, so the rate has to be
        measured against the embeddings that the context stands among. Ours, not the paper's; on three
        emoji-concepts datasets a quarter and four times the rate end within a few images of it
        (benchmarks/results/coop-rate.json).
        """
        tokens = self._tokens(self.names)
        embeddings = self.clip.text.embed(tokens.ids).float()
        named = torch.cat([text[start:end] for text, (start, end) in zip(embeddings, tokens.spans, strict=True)])
        return {"lr": PAPER_LR * named.square().mean().sqrt().item() / INIT_STD}

    def config(self) -> dict[str, Any]:
        """The words for `context`, an attribute that holds the trained tokens."""
        return {**super().config(), "context": self.words}

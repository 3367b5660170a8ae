"""What the methods with prompts inside the towers share: prompted images, deep text prompts, and how both start.

A depth counts the layers whose input holds learned tokens: 1 is shallow; from then on the tokens of layers
2, ..., depth are replaced by learned ones, and layers after that go on with what came out.

Notation: `B` images, `C` classes, `D` embedding, `M` text tokens, `V` visual tokens, `W` width of a tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import Batch
from ogenlib.hosts.coop import INIT_STD, PAPER_LR, CoOp
from ogenlib.hosts.parts.pixel_host import PixelHost
from ogenlib.towers import Backbone, context_from_words, encode_prompts


def usable_depth(asked: int | None, usual: int, layers: int, towers: str) -> int:
    """`asked`, or the method's `usual` depth clipped to the `layers` of the (shallowest) tower.

    Raises:
        ValueError: `asked` is no depth of these towers.
    """
    if asked is None:
        return min(usual, layers)
    if not 1 <= asked <= layers:
        raise ValueError(
            f"depth={asked}: must be 1 to {layers}, the layers of {towers}; None takes {min(usual, layers)}"
        )
    return asked


def random_prompts(*shape: int, generator: torch.Generator, device: torch.device) -> nn.Parameter:
    """Normal with std 0.02, as in the released code of MaPLe and PromptSRC (trainers/maple.py)."""
    return nn.Parameter((INIT_STD * torch.randn(*shape, generator=generator)).to(device))


def check_count(name: str, value: int) -> int:
    """`value`, a number of tokens; ValueError below 1."""
    if value < 1:
        raise ValueError(f"{name}={value}: at least one token is needed")
    return value


class PromptedImages(PixelHost):
    """Mixin: image features come from an image tower with prompts, so only from pixels.

    Subclasses write `visual_prompts`, set `published` and keep `paper_training`.

    Attributes:
        published: training settings of the released code.
        paper_training: whether `train_settings` gives those.
    """

    changes: ClassVar[str] = "puts prompts into the image tower"
    published: ClassVar[dict[str, Any]]
    paper_training: bool

    def visual_prompts(self) -> Tensor:
        """`(depth, V, W)`, the first layer's tokens first."""
        raise NotImplementedError

    @property
    def n_visual(self) -> int:
        """`V`."""
        return self.visual_prompts().shape[1]

    def image_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, D)` of the pixels, with prompts; ValueError as `prompted_features`."""
        return F.normalize(self.prompted_features(batch), dim=-1)

    def prompted_features(self, batch: Batch) -> Tensor:
        """Rows `(B, D)` as they leave the image tower with prompts, fp32.

        Raises:
            ValueError: the batch holds no pixels.
        """
        pixels = self.pixels_of(batch)
        prompts = self.visual_prompts()
        deep = prompts[1:] if len(prompts) > 1 else None
        return self.clip.image.encode(pixels, prompts=prompts[0], deep=deep).float()

    def train_settings(self) -> dict[str, Any]:
        """The released settings with `paper_training`, else this library's."""
        return dict(self.published) if self.paper_training else self.default_settings()

    def default_settings(self) -> dict[str, Any]:
        """The released learning rate, here for AdamW, which moves every coordinate by about that much.

        Blocks see a token through their layer norms only, so a step counts by the size of the token that moves: 0.02
        at the start in every model. The size of the patches beside it (1.1 in ogen-tiny) does not enter. Ours.
        """
        return {"lr": self.published["lr"]}


class DeepText(CoOp):
    """CoOp's context in the first layer of the text tower, and learned tokens in its place in the next ones.

    Args:
        context: words that start the first layer's tokens; None for a random start. Of more words than tokens the
            first are taken, as in the released code.
        n_context: `M`; None for `usual`, or as many as there are words if those are fewer.
        depth: layers with learned tokens, 1 to the number of layers.
        chunk: as for `CoOp`.
    """

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None,
        *,
        n_context: int | None,
        usual: int,
        depth: int,
        chunk: int | None,
        generator: torch.Generator,
    ) -> None:
        start = None if context is None else context_from_words(clip.text, context)
        if n_context is None:
            n_context = usual if start is None else min(usual, len(start))
        check_count("n_context", n_context)
        if start is not None and n_context > len(start):
            raise ValueError(
                f"n_context={n_context}, but context {context!r} is only {len(start)} tokens long; give more words, "
                "fewer tokens, or context=None for a random start"
            )
        if depth > 1 and not clip.text.supports_deep_prompts:
            raise ValueError(f"text tower {type(clip.text).__name__} has no deep prompts: pass depth=1")
        super().__init__(clip, names, None, n_context=n_context, chunk=chunk, generator=generator)
        self.words = context
        if start is not None:
            with torch.no_grad():
                self.context.copy_(start[:n_context])
        shape = (depth - 1, n_context, clip.text.width)
        self.deep_context = None
        if depth > 1:
            self.deep_context = random_prompts(*shape, generator=generator, device=clip.device)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` of any names behind the learned tokens; what the names share is computed once."""
        tokens = self._tokens(self.names if names is None else tuple(names))
        features = encode_prompts(self.clip.text, tokens, self.context, deep=self.deep_context, chunk=self.chunk)
        return F.normalize(features.float(), dim=-1)

    def text_prompts(self) -> Tensor:
        """`(depth, M, W)`, the first layer's tokens first."""
        return self.context[None] if self.deep_context is None else torch.cat([self.context[None], self.deep_context])


class DeepPrompts(PromptedImages, DeepText):
    """Learned tokens in the first layers of both towers, in as many as the shallower one has.

    Subclasses set `usual_tokens` and `usual_depth`, and make what the image side needs after the text tokens.

    Args:
        generator: of the random start; a subclass draws on from it.
        n_context: `M`; None for `usual_tokens`, or as many as there are words if those are fewer.
        depth: layers with tokens in both towers; None for `usual_depth`, or all of the shallower tower.
        chunk: classes encoded at a time, to bound memory; None for all at once.
        paper_training: `train_settings` gives the released code's settings.
    """

    usual_tokens: ClassVar[int]
    usual_depth: ClassVar[int]

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None,
        *,
        generator: torch.Generator,
        n_context: int | None = None,
        depth: int | None = None,
        chunk: int | None = None,
        paper_training: bool = False,
    ) -> None:
        layers = min(clip.image.layers, len(clip.text.blocks))
        self.depth = usable_depth(depth, self.usual_depth, layers, "the shallower tower")
        self.paper_training = paper_training
        super().__init__(
            clip,
            names,
            context,
            n_context=n_context,
            usual=self.usual_tokens,
            depth=self.depth,
            chunk=chunk,
            generator=generator,
        )

    def default_settings(self) -> dict[str, Any]:
        """The released learning rate times the size of the names' token embeddings in units of 0.02, as
        `CoOp.train_settings` has it and for its reason: the first text tokens are words.

        The other prompts start at 0.02 in every model, where a larger rate moves them further; behind layer norms they
        grow until it suits them. Ours.
        """
        return {"lr": self.published["lr"] * CoOp.train_settings(self)["lr"] / PAPER_LR}

"""Towers that are trained themselves: fp32 copies of the model's, beside the model, which stays as it was.

A host owns the copies; `clip` goes on being the zero-shot model that anchors, teachers and names without images need.
The copies stay in eval mode: no dropout, and batch norms keep the statistics of pretraining, so that a batch divided
among processes trains as a whole one does. The logit scale is not trained.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch
from ogenlib.hosts.parts.pixel_host import PixelHost
from ogenlib.hosts.zero_shot import Anchored, ZeroShotAnchor, template_weights
from ogenlib.towers import Backbone, ClipLike, ImageTower, TextTower
from ogenlib.towers.text import encode_texts

NOT_TRAINED = ("logit_scale", "logit_bias")


def tuned_copy(part: nn.Module) -> nn.Module:
    """A trainable copy in fp32 (master weights under autocast), in eval mode."""
    return deepcopy(part).float().requires_grad_(True).eval()


def whole_model(clip: ClipLike) -> Backbone:
    """`clip` itself; ValueError for a table of features, which has no towers."""
    if not isinstance(clip, Backbone):
        raise ValueError(f"{clip.name!r} has no towers to train; load a model: load_backbone(name, pretrained=...)")
    return clip


class TunedImages(PixelHost):
    """Mixin: image features of a trained copy of the image tower. Write it before the class that has the weights.

    Attributes:
        visual: the copy of `clip.model.visual`, equal to it at the start.
        image_tower: the same, wrapped as the backbone's own.
    """

    changes: ClassVar[str] = "trains the image tower"
    visual: nn.Module
    image_tower: ImageTower

    def __init__(self, clip: ClipLike, names: Sequence[str], *args: Any, **options: Any) -> None:
        super().__init__(clip, names, *args, **options)
        self._copy_towers(clip)

    def _copy_towers(self, clip: ClipLike) -> None:
        self.visual = tuned_copy(clip.image.visual)
        self.image_tower = ImageTower(self.visual)

    def image_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, D)`, fp32, of the pixels by the trained tower; ValueError without pixels."""
        return F.normalize(self.image_tower.encode(self.pixels_of(batch)).float(), dim=-1)

    def merged(self) -> dict[str, Tensor]:
        """The trained tensors under their names in the open_clip model, ``visual....``."""
        return {f"visual.{name}": tensor.detach() for name, tensor in self.visual.state_dict().items()}

    def frozen_twins(self) -> dict[str, tuple[nn.Parameter, Tensor]]:
        """Name in `trainable()` -> (trained tensor, the frozen one that it started as), of the towers."""
        frozen = dict(self.clip.image.visual.named_parameters())
        return {f"visual.{n}": (p, frozen[n]) for n, p in self.visual.named_parameters() if p.requires_grad}

    def checkpointed(self) -> list[Any]:
        return [self.visual]

    def train(self, mode: bool = True) -> TunedImages:
        super().train(mode)
        for part in self.checkpointed():
            part.eval()
        return self


class TunedTowers(TunedImages, Anchored):
    """Mixin: both towers are trained; class weights are the trained text tower's, of templates.

    Args:
        templates: of the class weights, one or several to average.
        chunk: texts encoded at a time, to bound memory.

    Attributes:
        model: the copy of the open_clip model, equal to it at the start.
        image_tower, text_tower: its towers, wrapped as the backbone's own.
        anchor: the frozen model's weights of the same templates.
    """

    changes: ClassVar[str] = "trains both towers"
    model: Any
    text_tower: TextTower

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        chunk: int = 256,
    ) -> None:
        super().__init__(clip, names)
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must be 1 text or more")
        self.anchor, self.chunk = ZeroShotAnchor(clip, templates), chunk

    @property
    def visual(self) -> nn.Module:  # type: ignore[override]
        """The image tower of the trained copy."""
        return self.model.visual

    def _copy_towers(self, clip: ClipLike) -> None:
        whole = whole_model(clip)
        self.model = tuned_copy(whole.model)
        for name, parameter in self.model.named_parameters(recurse=False):
            if name in NOT_TRAINED:
                parameter.requires_grad_(False)
        self.image_tower = ImageTower.from_open_clip(self.model)
        self.text_tower = TextTower.from_open_clip(self.model, whole.tokenizer)

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """Unit features, fp32, of plain sentences by the trained text tower."""
        return F.normalize(encode_texts(self.text_tower, texts, self.chunk), dim=-1)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` for any names by the trained text tower, with gradients."""
        return template_weights(self.encode_text, self.names if names is None else names, self.anchor.templates)

    def merged(self) -> dict[str, Tensor]:
        """The trained tensors under their names in the open_clip model."""
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def frozen_twins(self) -> dict[str, tuple[nn.Parameter, Tensor]]:
        """Name in `trainable()` -> (trained tensor, the frozen one that it started as), of both towers."""
        frozen = dict(whole_model(self.clip).model.named_parameters())
        return {f"model.{n}": (p, frozen[n]) for n, p in self.model.named_parameters() if p.requires_grad}

    def checkpointed(self) -> list[Any]:
        return [self.model]

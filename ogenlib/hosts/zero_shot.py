"""Zero-shot classification with CLIP: class names in hand-written sentences.

"Learning Transferable Visual Models From Natural Language Supervision", Radford et al. 2021.
https://arxiv.org/abs/2103.00020

Reproduced: single templates and template ensembles (unit text features averaged, then normalised again).
Not reproduced: the paper's per-dataset templates, which belong to the datasets.

Notation: `C` classes, `D` embedding, `T` templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, Host, MethodInfo
from ogenlib.hosts.registry import register
from ogenlib.towers import ClipLike

MAX_CACHED = 8  # lists of names kept; training and evaluation use a few


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """A tuple of templates that each hold one ``{}``; ValueError otherwise."""
    chosen = (templates,) if isinstance(templates, str) else tuple(templates)
    wrong = [t for t in chosen if t.count("{}") != 1]
    if wrong or not chosen:
        raise ValueError(f"templates {wrong or list(chosen)} must each hold '{{}}' once, as 'a photo of a {{}}.'")
    return chosen


def filled(templates: str | Sequence[str], names: Sequence[str]) -> list[str]:
    """The texts of the first name in every template, then those of the second, ...; underscores become spaces."""
    chosen = check_templates(templates)
    return [template.format(name.replace("_", " ")) for name in names for template in chosen]


def template_weights(
    encode: Callable[[Sequence[str]], Tensor], names: Sequence[str], templates: str | Sequence[str]
) -> Tensor:
    """Unit weights `(C, D)`: the mean of each name's unit text features over the templates, normalised.

    Args:
        encode: sentences -> unit features; gradients go through where it has any.
    """
    chosen = check_templates(templates)
    features = encode(filled(chosen, names))
    if len(chosen) == 1:
        return features  # unit length as they are; normalising again would only round them
    return F.normalize(reduce(features, "(c t) d -> c d", "mean", t=len(chosen)), dim=-1)


@torch.no_grad()
def zero_shot_weights(clip: ClipLike, names: Sequence[str], templates: str | Sequence[str]) -> Tensor:
    """`template_weights` of the frozen model."""
    return template_weights(clip.encode_text, names, templates)


class ZeroShotAnchor:
    """Zero-shot weights of any names, computed once for each list of names; never trained.

    Args:
        templates: one template or several to average.
    """

    def __init__(self, clip: ClipLike, templates: str | Sequence[str]) -> None:
        self.clip, self.templates = clip, check_templates(templates)
        self._cache: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Unit weights `(C, D)`, fp32, on the model's device."""
        key = tuple(names)
        if key not in self._cache:
            if len(self._cache) >= MAX_CACHED:
                self._cache.pop(next(iter(self._cache)))
            # What is kept must not depend on the precision of the step that asked first.
            with torch.autocast(self.clip.device.type, enabled=False):
                self._cache[key] = zero_shot_weights(self.clip, key, self.templates)
        return self._cache[key].to(self.clip.device)


class Anchored(Host):
    """Mixin: a host with zero-shot weights at hand, of templates that the dataset may give.

    Subclasses set `anchor` and take `templates`.
    """

    anchor: ZeroShotAnchor

    @property
    def templates(self) -> tuple[str, ...]:
        """Those of its zero-shot weights."""
        return self.anchor.templates

    @classmethod
    def dataset_options(cls, templates: Sequence[str]) -> dict[str, Any]:
        """The dataset's own templates, besides what the host takes anyway."""
        return {**super().dataset_options(templates), "templates": list(templates)}

    def reference_templates(self) -> tuple[str, ...]:
        """Those of its zero-shot weights."""
        return self.templates


class AnchoredHost(Anchored):
    """A host made from the zero-shot weights of its names.

    Args:
        templates: of the zero-shot weights, one or several to average.
    """

    def __init__(
        self, clip: ClipLike, names: Sequence[str], templates: str | Sequence[str] = DEFAULT_TEMPLATES
    ) -> None:
        super().__init__(clip, names)
        self.anchor = ZeroShotAnchor(clip, templates)


@register
class ZeroShot(AnchoredHost):
    """CLIP as it comes; nothing is trained.

    Args:
        templates: one template or several to average.
    """

    info = MethodInfo(
        "zero_shot",
        "baseline",
        "Learning Transferable Visual Models From Natural Language Supervision",
        "https://arxiv.org/abs/2103.00020",
        2021,
        ogen=False,
        title="Zero-shot",
        aliases=("CLIP",),
    )

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)`; frozen, so computed once for each list of names."""
        return self.anchor(self.names if names is None else names)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        raise ValueError("zero_shot has nothing to train; use evaluate, predict or save directly")

"""Text features of known names in the place of a model: for those who have cached features and no weights.

Notation: `C` names, `N` texts, `D` embedding width.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.towers.base import ClipLike

SHOWN = 3  # unknown texts named in an error
_NO_TEXT = "this table has no text tower: prompt learners need load_backbone(...)"
_NO_IMAGES = (
    "this table has no image tower: pass features, FeatureBank.from_features(...), or encode images with "
    "load_backbone(...)"
)
_ABSENT = {
    "text": _NO_TEXT, "tokenizer": _NO_TEXT, "image": _NO_IMAGES, "preprocess": _NO_IMAGES,
    "model": "this table has no model: fine-tuning needs load_backbone(...)",
}  # fmt: skip


class EmbeddingTable(ClipLike):
    """Known names and their text features, behind the interface of a backbone.

    Whatever works on class weights and on feature banks works with it; what needs a tower is refused. A host's
    templates must be ``"{}"``: a feature belongs to a name, in whatever sentence that was encoded.

    Args:
        names: one for each feature. Lookup takes ``_`` for a space, as hosts do.
        text: `(C, D)` features of any length, such as the mean over templates; hosts see unit vectors.
        logit_scale: already exponentiated (100 for OpenAI's CLIP, whose parameter is log 100).
        name: stands in fingerprints.

    Raises:
        ValueError: shapes that do not match, repeated names, a row that is zero or not finite, a scale that
            is not positive.
    """

    rows: Tensor
    unit: Tensor
    scale: Tensor

    def __init__(self, names: Sequence[str], text: Tensor, *, logit_scale: float = 100.0, name: str = "table") -> None:
        super().__init__()
        features = torch.as_tensor(text).detach().float().clone()
        _check(names, features, logit_scale)
        self.names = tuple(names)
        self._row = {_clean(n): i for i, n in enumerate(self.names)}
        self.register_buffer("rows", features)
        self.register_buffer("unit", F.normalize(features, dim=-1))
        self.register_buffer("scale", torch.tensor(float(logit_scale), device=features.device))
        self.name, self.pretrained, self.precision, self.quick_gelu = name, None, "fp32", False
        self.embed_dim = features.shape[1]
        self.preprocess_cfg = {}
        self.weights_hash = _hash(self.names, features, float(logit_scale))
        self.eval()

    def __getattr__(self, attribute: str) -> Any:
        if attribute in _ABSENT:
            raise ValueError(_ABSENT[attribute])
        return super().__getattr__(attribute)

    @property
    def device(self) -> torch.device:
        """Where the features lie."""
        return self.unit.device

    @property
    def logit_scale(self) -> Tensor:
        """Scalar, fp32, already exponentiated."""
        return self.scale.float()

    @property
    def logit_bias(self) -> None:
        """Always None."""
        return None

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        """ValueError: there is no image tower."""
        raise ValueError(_NO_IMAGES)

    def encode_text(self, texts: str | Sequence[str], normalize: bool = True, chunk: int = 256) -> Tensor:
        """Features `(N, D)`, fp32, of known names; `chunk` changes nothing.

        Raises:
            ValueError: a text is none of the names; the closest ones are shown.
        """
        names = [texts] if isinstance(texts, str) else list(texts)
        unknown = [t for t in dict.fromkeys(names) if _clean(t) not in self._row]
        if unknown:
            raise ValueError(self._unknown(unknown))
        index = torch.tensor([self._row[_clean(t)] for t in names], dtype=torch.long, device=self.device)
        return (self.unit if normalize else self.rows)[index].float()

    def _unknown(self, texts: Sequence[str]) -> str:
        shown = []
        for text in texts[:SHOWN]:
            close = difflib.get_close_matches(_clean(text), self._row, n=2)
            hint = " or ".join(repr(self.names[self._row[c]]) for c in close)
            shown.append(f"{text!r}" + (f" (did you mean {hint}?)" if hint else ""))
        more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
        return (
            f"the table of {len(self.names)} names has no tower to encode others: {', '.join(shown)}{more}. "
            "Ask for names as they are, with templates='{}', or use load_backbone(...)"
        )


def _clean(name: str) -> str:
    return name.replace("_", " ")


def _check(names: Sequence[str], features: Tensor, logit_scale: float) -> None:
    if isinstance(names, str) or not len(names):
        raise ValueError(f"names={names!r}: pass a non-empty list of names, one for each row")
    if features.ndim != 2 or len(features) != len(names):
        raise ValueError(
            f"{len(names)} names need text features of shape ({len(names)}, D), got {tuple(features.shape)}"
        )
    cleaned = [_clean(n) for n in names]
    if len(set(cleaned)) != len(cleaned):
        twice = [n for n in names if cleaned.count(_clean(n)) > 1]
        raise ValueError(f"names {twice[: 2 * SHOWN]} are the same up to '_' and ' '; every name needs one row")
    lengths = features.norm(dim=-1)
    bad = [n for n, ok in zip(names, (lengths.isfinite() & (lengths > 0)).tolist(), strict=True) if not ok]
    if bad:
        raise ValueError(f"the features of {bad[:SHOWN]} are zero or not finite; leave these names out")
    if not (logit_scale > 0 and math.isfinite(logit_scale)):
        raise ValueError(f"logit_scale={logit_scale}: must be positive, already exponentiated (100 for OpenAI's CLIP)")


def _hash(names: Sequence[str], features: Tensor, logit_scale: float) -> str:
    digest = hashlib.sha256(json.dumps([list(names), list(features.shape), logit_scale]).encode())
    digest.update(features.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]

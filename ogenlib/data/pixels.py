"""Images as pixels, for methods that change the image side: the same views as a feature bank's, not yet encoded.

Notation: `N` images, `V` views, `B` images of a training batch, `D` embedding, (H, W) pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ogenlib.data.augment import Augment
from ogenlib.data.bank import FeatureBank
from ogenlib.data.dataset import ImageSet
from ogenlib.data.extract import Encoder, Extraction, check_finite, eval_mode
from ogenlib.data.pixel_source import Decoder, PixelSource, Stored
from ogenlib.data.rows import LabelledRows, selected

CACHES = ("auto", "memory", "none")
MEMORY_LIMIT = 2 * 1024**3  # bytes that "auto" keeps at most: 14,000 views of 224 x 224


@dataclass(frozen=True, eq=False)
class PixelBank(LabelledRows):
    """Pixels of N images in V views; made by `PixelBank.load`.

    source: where pixels come from, shared by everything selected from the bank.
    rows: (N,) int64 numbers of the images there.
    labels: (N,) int64 into `classnames`; batches come out on their device.
    fingerprint: what the pixels were made from, JSON-able: `preprocess`, `data`, `views`, `augment`, `seed`, as a
        feature bank has them.
    skipped: images left out by `skip_bad=True`, as `{"file": ..., "reason": ...}`.
    """

    source: PixelSource
    rows: Tensor
    labels: Tensor
    classnames: tuple[str, ...]
    domains: list[str]
    keys: list[str]
    fingerprint: dict[str, Any]
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __repr__(self) -> str:
        kept = "in memory" if isinstance(self.source, Stored) else "decoded when used"
        return f"PixelBank({len(self)} images, {self.views} views, {kept}, {len(self.classnames)} classes)"

    @property
    def views(self) -> int:
        """V."""
        return self.source.views

    def _take(self, indices: Tensor, step: str, labels: Tensor, classnames: tuple[str, ...]) -> PixelBank:
        return replace(
            self,
            rows=self.rows[indices],
            labels=labels,
            classnames=classnames,
            domains=[self.domains[i] for i in indices.tolist()],
            keys=[self.keys[i] for i in indices.tolist()],
            fingerprint=selected(self.fingerprint, step),
        )

    def to(self, device: torch.device | str) -> PixelBank:
        """The same bank with batches on `device`; what is stored stays in main memory."""
        return replace(self, labels=self.labels.to(device))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count,) numbers of views, drawn as `FeatureBank.view` draws them from a CPU generator."""
        return torch.randint(self.views, (count,), generator=generator)

    def pixels(self, indices: Tensor, views: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised: the images `indices` (B,) in the views `views` (B,).

        Raises FileNotFoundError or ValueError naming an image that has to be decoded and cannot be.
        """
        return self.source.read(self.rows[indices.cpu()], views.cpu(), self.labels.device)

    def view(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) float32: one view drawn at random for each of `indices` (B,)."""
        return self.pixels(indices, self.draw(len(indices), generator))

    def check_preprocess(self, clip: Encoder) -> None:
        """ValueError for a backbone that wants other pixels than these."""
        own, expected = self.fingerprint["preprocess"], json.loads(json.dumps(clip.preprocess_cfg))
        if own != expected:
            raise ValueError(
                f"the pixels were made for {own}, this backbone wants {expected}; "
                "make them again with PixelBank.load(clip, images)"
            )

    @torch.no_grad()
    def frozen(self, clip: Encoder, batch_size: int = 64) -> FeatureBank:
        """The features of the same views by the frozen image tower: what `FeatureBank.extract` would have given.

        batch_size: images and views a forward pass; it changes features by rounding only.
        Raises ValueError for a backbone with other preprocessing, or features that are not finite.
        """
        self.check_preprocess(clip)
        indices = torch.arange(len(self)).repeat_interleave(self.views)
        views = torch.arange(self.views).repeat(len(self))
        parts = []
        with eval_mode(clip):
            for index, view in zip(indices.split(batch_size), views.split(batch_size), strict=True):
                features = clip.encode_image(self.pixels(index, view).to(clip.device), normalize=False)
                parts.append(F.normalize(features.float(), dim=-1).cpu())
        features = torch.cat(parts).unflatten(0, (len(self), self.views))
        check_finite(features, self.keys)
        made_from = {key: value for key, value in self.fingerprint.items() if key != "preprocess"}
        backbone = json.loads(json.dumps(clip.fingerprint()))
        return FeatureBank(
            features=features,
            labels=self.labels.cpu(),
            classnames=self.classnames,
            domains=self.domains,
            keys=self.keys,
            fingerprint={"backbone": backbone, **made_from, "dtype": "float32"},
            skipped=self.skipped,
        ).to(self.labels.device)

    @classmethod
    def load(
        cls,
        clip: Encoder,
        images: ImageSet,
        views: int = 1,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        progress: bool = False,
        skip_bad: bool = False,
        workers: int = 0,
        cache: str = "auto",
    ) -> PixelBank:
        """Views of `images` as `clip` wants its pixels; of the model only the preprocessing is used.

        views, augment, seed: as for `FeatureBank.extract`, and the same pixels.
        skip_bad: leave out and count (`.skipped`) images that cannot be read, instead of stopping; opens every image.
        workers: threads that decode images, 0 for none besides the caller's.
        cache: "memory" decodes all views now and keeps them as bytes, 3 x H x W each; "none" decodes at every use;
            "auto" keeps them where that takes 2 GiB at most. It changes no number.
        Raises ValueError for bad settings, a `clip` without an image tower, or preprocessing whose pixels bytes
        cannot hold; FileNotFoundError or ValueError naming an image that cannot be read, with "none" at its use.
        """
        if cache not in CACHES or workers < 0:
            raise ValueError(
                f"cache={cache!r}, workers={workers}: cache is one of {', '.join(CACHES)}, workers 0 or more"
            )
        settings = Extraction(clip, images, views, augment, seed, skip_bad=skip_bad)
        make_view, cfg = settings.view_maker(), clip.preprocess_cfg
        fingerprint = settings.fingerprint()
        made_from = {key: fingerprint[key] for key in ("data", "views", "augment", "seed")}
        decoder = Decoder(images, make_view, views, workers)
        height, width = (cfg["size"],) * 2 if isinstance(cfg["size"], int) else cfg["size"]
        fits = len(images) * views * 3 * height * width <= MEMORY_LIMIT
        stored = None
        if cache == "memory" or (cache == "auto" and fits):
            stored = Stored(len(images), views, (height, width), cfg)
        kept, skipped = list(range(len(images))), []
        if stored is not None or skip_bad:
            kept = []
            opened = decoder.every(skip_bad, pixels=stored is not None)
            for index, outcome in tqdm(opened, "decoding images", len(images), unit="image", disable=not progress):
                if isinstance(outcome, dict):
                    skipped.append(outcome)
                    continue
                kept.append(index)
                if stored is not None:
                    stored.put(index, outcome)
        if not kept:
            raise ValueError(f"none of the {len(images)} images can be read, the first: {skipped[0]}")
        items = [images[i] for i in kept]
        return cls(
            source=decoder if stored is None else stored,
            rows=torch.tensor(kept),
            labels=torch.tensor([item.label for item in items]),
            classnames=images.classnames,
            domains=[item.domain for item in items],
            keys=[item.key for item in items],
            fingerprint={"preprocess": json.loads(json.dumps(cfg)), **made_from},
            skipped=skipped,
        )

"""Encoding images part by part, so that a long extraction can be killed and go on.

Notation: `n` images of a part, `V` views, `D` embedding.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypedDict

import msgspec
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ogenlib.data.augment import Augment, Augmenter
from ogenlib.data.dataset import ImageSet, read_failure
from ogenlib.utils.documents import DamagedFile, conform, read_document, write_document
from ogenlib.utils.tensors import open_tensors, write_tensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Encoder(Protocol):
    """What extraction needs of a backbone."""

    @property
    def device(self) -> torch.device: ...

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]: ...

    @property
    def preprocess_cfg(self) -> dict[str, Any]: ...

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor: ...

    def fingerprint(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Part:
    """Features (n, V, D) of the images `indices`, and what was left out on the way."""

    features: Tensor
    indices: list[int]
    skipped: list[dict[str, str]]


@dataclass(frozen=True)
class Extraction:
    """The settings of one extraction; see `FeatureBank.extract` for what they mean.

    Raises ValueError for numbers below 1 or another dtype than those of `DTYPES`.
    """

    clip: Encoder
    data: ImageSet
    views: int = 1
    augment: Augment | None = None
    seed: int = 0
    dtype: torch.dtype = torch.float32
    batch_size: int = 64
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.views < 1 or self.batch_size < 1:
            raise ValueError(f"views={self.views}, batch_size={self.batch_size}: both must be 1 or more")
        if self.dtype not in DTYPES:
            known = ", ".join(map(str, DTYPES))
            raise ValueError(f"a bank cannot be stored as {self.dtype}; dtype is one of {known}")
        if not len(self.data):
            raise ValueError("the image set is empty; there is nothing to extract")

    def fingerprint(self) -> dict[str, Any]:
        """What the features are made from, as JSON gives it back. Reads every file, decodes none."""
        augmented = self.views > 1  # the clean view depends on neither the augmentation nor the seed
        fingerprint = {
            "backbone": self.clip.fingerprint(),
            "data": {"hash": self.data.hash(), "content": self.data.content_hash(), "images": len(self.data)},
            "views": self.views,
            "augment": (self.augment or Augment()).as_dict() if augmented else None,
            "seed": self.seed if augmented else None,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        return json.loads(json.dumps(fingerprint))

    def view_maker(self) -> Callable[[Image.Image, str, int], Tensor]:
        """A function of an image, its key and a view's number to pixels (3, H, W)."""
        if self.views == 1:
            preprocess = self.clip.preprocess  # a table of features refuses here, before any image is opened
            return lambda image, key, view: preprocess(image)
        augmenter = Augmenter(self.clip.preprocess_cfg, self.augment)
        return lambda image, key, view: augmenter(image, seed=self.seed, key=key, view=view)

    def encode(self, indices: Iterable[int]) -> Part:
        """Decode, preprocess and encode the images at `indices`; batches never cross the end of a part.

        Raises FileNotFoundError or ValueError naming an image that cannot be read (unless `skip_bad`), and
        ValueError for features that are not finite.
        """
        make_view = self.view_maker()
        kept: list[int] = []
        skipped: list[dict[str, str]] = []
        waiting: list[Tensor] = []
        encoded: list[Tensor] = []
        for index in indices:
            try:
                image = self.data.open(index)
            except (FileNotFoundError, ValueError) as error:
                if not self.skip_bad:
                    raise
                skipped.append({"file": self.data[index].file, "reason": read_failure(error)})
                continue
            kept.append(index)
            waiting += [make_view(image, self.data[index].key, view) for view in range(self.views)]
            while len(waiting) >= self.batch_size:
                encoded.append(self._forward(waiting[: self.batch_size]))
                del waiting[: self.batch_size]
        if waiting:
            encoded.append(self._forward(waiting))
        if not kept:
            return Part(torch.empty(0), kept, skipped)
        features = torch.cat(encoded).unflatten(0, (len(kept), self.views))
        check_finite(features, [self.data[i].file for i in kept])
        return Part(features.to(self.dtype), kept, skipped)

    @torch.no_grad()
    def _forward(self, pixels: list[Tensor]) -> Tensor:
        with eval_mode(self.clip):
            features = self.clip.encode_image(torch.stack(pixels).to(self.clip.device), normalize=False)
        return F.normalize(features.float(), dim=-1).cpu()


def check_finite(features: Tensor, files: Sequence[str]) -> None:
    """ValueError naming the first of the images whose features (n, V, D) are not finite."""
    broken = [file for file, row in zip(files, features, strict=True) if not row.isfinite().all()]
    if broken:
        raise ValueError(
            f"{broken[0]}: the image tower's output is not finite (so for {len(broken)} "
            f"images); half precision may overflow, try load_backbone(..., precision='fp32')"
        )


class _Plan(TypedDict):
    fingerprint: dict[str, Any]
    images: Annotated[int, msgspec.Meta(ge=1)]


class Parts:
    """Finished parts in `path.partial/`, one safetensors file each; keeps nothing where there is no path."""

    def __init__(
        self, path: str | os.PathLike[str] | None, fingerprint: dict[str, Any], images: int, overwrite: bool = False
    ) -> None:
        """images: how many a part holds, unless parts are there already: theirs counts, so that they line up.

        Parts of other settings, and a plan that is damaged, are deleted with `overwrite`, and a ValueError without.
        """
        self.images = images
        self._folder = None if path is None else Path(f"{os.fspath(path)}.partial")
        if self._folder is None:
            return
        saved = self._plan(overwrite)
        if saved is not None:
            if not overwrite:
                refuse_stale(self._folder, saved["fingerprint"], fingerprint)
            if saved["fingerprint"] == fingerprint:
                self.images = saved["images"]
                return
        self.remove()
        write_document(self._folder / "plan.json", {"fingerprint": fingerprint, "images": images})

    def _plan(self, overwrite: bool) -> _Plan | None:
        assert self._folder is not None
        fix = f"delete {self._folder}, or pass overwrite=True"
        try:
            return read_document(self._folder / "plan.json", _Plan, what="the plan of an extraction", fix=fix)
        except FileNotFoundError:
            return None
        except DamagedFile:
            if not overwrite:
                raise
            return None

    def _file(self, start: int) -> Path | None:
        return None if self._folder is None else self._folder / f"from-{start:09d}.safetensors"

    def load(self, images: range) -> Part | None:
        """The part of these images, or None if it is not finished (or its file is damaged)."""
        file = self._file(images.start)
        if file is None or not file.is_file():
            return None
        try:
            opened = open_tensors(file, what="a finished part", fix="", needs=("features", "rows"), note=False)
            skipped = opened.header("skipped", "a finished part", "")
            conform(skipped, list[dict[str, str]], file, "a finished part", "")
        except DamagedFile:
            return None
        features, stored = opened.tensors["features"], opened.tensors["rows"]
        whole = stored.dtype == torch.int64 and stored.ndim == 1 and features.dtype in DTYPES
        if not whole or (len(stored) and (features.ndim != 3 or len(features) != len(stored))):
            return None
        indices = stored.tolist()
        if indices != sorted({*indices} & {*images}) or len(indices) + len(skipped) != len(images):
            return None
        return Part(features, indices, skipped)

    def save(self, start: int, part: Part) -> None:
        """Keep a finished part."""
        file = self._file(start)
        if file is None:
            return
        tensors = {"features": part.features, "rows": torch.tensor(part.indices, dtype=torch.long)}
        write_tensors(file, tensors, {"skipped": json.dumps(part.skipped)})

    def __str__(self) -> str:
        return str(self._folder)

    def remove(self) -> None:
        """Delete the folder of parts."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def refuse_stale(path: str | os.PathLike[str], saved: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """Raise ValueError naming every field of `expect` that `saved` does not have or has otherwise."""
    expected = json.loads(json.dumps(dict(expect)))
    different = [line for name in expected for line in _differences(name, saved.get(name, "missing"), expected[name])]
    if different:
        raise ValueError(
            f"{path}: these features were made from something else: {'; '.join(different)}. Extract them "
            f"again (to another path, or with overwrite=True), or use what they were made from"
        )


def _differences(name: str, saved: Any, expected: Any) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(expected, dict):
        for key in sorted({*saved, *expected}):
            yield from _differences(f"{name}.{key}", saved.get(key, "missing"), expected.get(key, "missing"))
    elif saved != expected:
        yield f"{name} is {saved}, expected {expected}"


@contextlib.contextmanager
def eval_mode(clip: Any) -> Iterator[None]:
    """Put every module of `clip` in eval mode, and back the ones that were not."""
    training = [m for m in clip.modules() if m.training] if isinstance(clip, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""Image features computed once and kept: the frozen image tower's output for every image and view.

Features that somebody else computed become a bank with `FeatureBank.from_features`.

Notation: `N` images, `V` views, `C` classes, `D` embedding, `B` images of a training batch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ogenlib.data.augment import Augment
from ogenlib.data.bank_file import FORMAT, pack_texts, read_bank
from ogenlib.data.dataset import ImageSet, short_hash
from ogenlib.data.extract import Encoder, Extraction, Parts, refuse_stale
from ogenlib.data.rows import LabelledRows, selected
from ogenlib.data.shard_plan import MANIFEST, Manifest, ShardFormat
from ogenlib.utils.files import DamagedFile
from ogenlib.utils.locks import hold
from ogenlib.utils.tensors import write_tensors

SHARDS = ShardFormat(
    "bank", "extract_shards(clip, images, {})", "ogenlib.bank-plan/1", "ogenlib.bank-manifest/1", ("bank.safetensors",)
)


@dataclass(frozen=True, eq=False)
class FeatureBank(LabelledRows):
    """Features of N images in V views.

    features: (N, V, D) unit vectors, in the storage dtype, on the CPU unless moved.
    labels: (N,) int64 into `classnames`.
    fingerprint: what the features were made from, JSON-able: `backbone`, `data`, `views`, `augment`, `seed`,
        `dtype`; `augment` and `seed` are None for the clean view, which neither changes.
    skipped: images left out by `skip_bad=True`, as `{"file": ..., "reason": ...}`.
    """

    features: Tensor
    labels: Tensor
    classnames: tuple[str, ...]
    domains: list[str]
    keys: list[str]
    fingerprint: dict[str, Any]
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.features.ndim != 3 or not len(self.features) == len(self.domains) == len(self.keys) == n:
            raise ValueError(
                f"a bank of {n} labels needs features of shape ({n}, V, D) and as many domains and keys; got "
                f"{tuple(self.features.shape)}, {len(self.domains)} and {len(self.keys)}"
            )

    def __repr__(self) -> str:
        n, views, dim = self.features.shape
        return f"FeatureBank({n} images, {views} views, {dim} dims, {len(self.classnames)} classes)"

    # ------------------------------------------------------------------ selecting

    def _take(self, indices: Tensor, step: str, labels: Tensor, classnames: tuple[str, ...]) -> FeatureBank:
        return replace(
            self,
            features=self.features[indices.to(self.features.device)],  # copied out of the file they are mapped from
            labels=labels,
            classnames=classnames,
            domains=[self.domains[i] for i in indices.tolist()],
            keys=[self.keys[i] for i in indices.tolist()],
            fingerprint=selected(self.fingerprint, step),
        )

    def to(self, device: torch.device | str) -> FeatureBank:
        """The same bank with features and labels on `device`."""
        return replace(self, features=self.features.to(device), labels=self.labels.to(device))

    def view(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, D) float32: one view drawn at random for each of `indices` (B,).

        generator: a CPU generator; the draws do not depend on the device the features are on.
        """
        return self.pick(indices, self.draw(len(indices), generator))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count,) numbers of views, drawn on the CPU."""
        return torch.randint(self.features.shape[1], (count,), generator=generator)

    def pick(self, indices: Tensor, views: Tensor) -> Tensor:
        """(B, D) float32: the images `indices` (B,) in the views `views` (B,)."""
        device = self.features.device
        return self.features[indices.to(device), views.to(device)].float()

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; an existing file is replaced."""
        header, tensors = self.contents()
        write_tensors(path, tensors, {"bank": json.dumps(header)})

    def contents(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file of this bank holds: a JSON-able header, and tensors."""
        known = sorted(set(self.domains))
        code = {domain: i for i, domain in enumerate(known)}
        header = {
            "format": FORMAT,
            "classnames": list(self.classnames),
            "domains": known,
            "fingerprint": self.fingerprint,
            "skipped": self.skipped,
        }
        tensors = {
            "features": self.features,
            "labels": self.labels,
            "domain": torch.tensor([code[domain] for domain in self.domains], dtype=torch.int32),
            "keys": pack_texts(self.keys),
        }
        return header, tensors

    @classmethod
    def load(cls, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None) -> FeatureBank:
        """Open a saved bank: read once to be checked; features are mapped from the file, and read when they are used.

        path: a file, or the folder of a bank that several processes made (`extract_shards`).
        expect: the fingerprint the bank must have (`bank_fingerprint(...)`, or only some of its fields).
        Raises FileNotFoundError; ValueError if the file is no bank or damaged, or for a stale bank, naming every
        field that differs. A bank from before ogenlib wrote digests opens with a note in the log.
        """
        folder = Path(path)
        manifest = read_manifest(folder) if folder.is_dir() else None
        file = folder if manifest is None else SHARDS.member(folder, manifest["bank"], manifest.get("digest"))
        bank = cls(**read_bank(file))
        if manifest is not None and (manifest["rows"], manifest["fingerprint"]) != (len(bank), bank.fingerprint):
            raise DamagedFile(f"{file} is not the bank that {folder / MANIFEST} was written for; extract it again")
        if expect is not None:
            refuse_stale(file, bank.fingerprint, expect)
        return bank

    # ------------------------------------------------------------------ making

    @classmethod
    def from_features(
        cls,
        features: Tensor,
        labels: Tensor | Sequence[int],
        classnames: Sequence[str],
        clip: Encoder,
        domain: str = "",
    ) -> FeatureBank:
        """A bank of features that were computed elsewhere, with one view each.

        features: (N, D) of any length and float type (a NumPy array will do); kept as unit vectors in float32.
        labels: (N,) into `classnames`.
        clip: what made them: the `EmbeddingTable` of the same model, or the model itself. Nothing can check
            that but the width.
        Raises ValueError for shapes that do not match, labels outside `classnames`, and features that are zero or
        not finite.
        """
        backbone = clip.fingerprint()
        vectors, index = torch.as_tensor(features).detach().cpu().float(), torch.as_tensor(labels).detach().cpu()
        names = tuple(classnames)
        _check_features(vectors, index, names, backbone)
        content = hashlib.sha256(vectors.contiguous().numpy().data).hexdigest()[:16]
        given = {
            "hash": short_hash([content, index.tolist(), names, domain]),
            "content": content,
            "images": len(vectors),
        }
        return cls(
            features=F.normalize(vectors, dim=-1)[:, None],
            labels=index.long(),
            classnames=names,
            domains=[domain] * len(vectors),
            keys=[f"row/{i}" for i in range(len(vectors))],
            fingerprint={
                "backbone": json.loads(json.dumps(backbone)),
                "data": given,
                "views": 1,
                "augment": None,
                "seed": None,
                "dtype": "float32",
            },
        )

    @classmethod
    def extract(
        cls,
        clip: Encoder,
        data: ImageSet,
        views: int = 1,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        batch_size: int = 64,
        dtype: torch.dtype = torch.float32,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        progress: bool = False,
        skip_bad: bool = False,
        chunk_views: int = 1024,
    ) -> FeatureBank:
        """Encode `data` with the frozen image tower, without gradients and in eval mode.

        views: 1 is the clean evaluation view; more are that many augmented views, each seeded by `seed`, the
            image's key and the view's number, so order, batch size and restarts do not change the pixels.
        augment: crops and flips of the augmented views; `Augment()` if not given.
        batch_size: images and views a forward pass; it changes features by rounding only.
        dtype: float32, float16 or bfloat16 storage; features are normalised in float32 first.
        path: where the bank goes. A bank with the same fingerprint that is already there is loaded; another
            is refused, or replaced with `overwrite`. Finished parts are kept in `path.partial/`, so a run
            that was killed goes on where it stopped; the folder disappears when the bank is complete.
        skip_bad: leave out and count (`.skipped`) images that cannot be read, instead of stopping.
        chunk_views: how many images times views a part holds: the most work that a kill can lose.
        Raises ValueError or FileNotFoundError naming the image that cannot be read, ValueError for a stale
        bank or part at `path`, bad settings, or features that are not finite.
        """
        if chunk_views < 1:
            raise ValueError(f"chunk_views={chunk_views}: must be 1 or more")
        extraction = Extraction(clip, data, views, augment, seed, dtype, batch_size, skip_bad)
        fingerprint = extraction.fingerprint()

        def make() -> FeatureBank:
            parts = Parts(path, fingerprint, max(1, chunk_views // views), overwrite)
            bank = cls(**_gather(extraction, parts, progress), fingerprint=fingerprint)
            if path is not None:
                bank.save(path)
                parts.remove()
            return bank

        if path is None:
            return make()
        finished = None if overwrite else cls._finished(path, fingerprint, skip_bad)
        if finished is not None:
            return finished
        with hold(path):
            # another process may have finished it while this one waited
            finished = None if overwrite else cls._finished(path, fingerprint, skip_bad)
            if finished is not None:
                return finished
            make()
        return cls.load(path)

    @classmethod
    def _finished(
        cls, path: str | os.PathLike[str], fingerprint: Mapping[str, Any], skip_bad: bool
    ) -> FeatureBank | None:
        """The bank that is at `path`; None if there is none, ValueError for one that was made otherwise."""
        if not Path(path).exists():
            return None
        bank = cls.load(path, expect=fingerprint)
        if bank.skipped and not skip_bad:
            raise ValueError(
                f"{path}: this bank was made without {len(bank.skipped)} bad images, the first of them "
                f"{bank.skipped[0]}; accept that with skip_bad=True, or repair them and overwrite=True"
            )
        return bank


def _gather(extraction: Extraction, parts: Parts, progress: bool) -> dict[str, Any]:
    """The fields of a bank of all parts, but for its fingerprint; those that are not finished are encoded and kept."""
    data = extraction.data
    features = torch.empty(0)
    kept: list[int] = []
    skipped: list[dict[str, str]] = []
    with tqdm(total=len(data), desc="extracting features", unit="image", disable=not progress) as bar:
        for start in range(0, len(data), parts.images):
            indices = range(start, min(start + parts.images, len(data)))
            part = parts.load(indices)
            if part is None:
                part = extraction.encode(indices)
                parts.save(start, part)
            if part.skipped and not extraction.skip_bad:
                raise ValueError(
                    f"{part.skipped[0].get('file')}: was left out by an earlier run with skip_bad=True; "
                    f"pass it again, or repair the image and overwrite=True"
                )
            if part.indices:
                if not features.numel():
                    features = torch.empty(len(data), *part.features.shape[1:], dtype=extraction.dtype)
                if part.features.shape[1:] != features.shape[1:]:
                    raise DamagedFile(f"{parts}: its parts are not of one shape; delete it, or pass overwrite=True")
                features[len(kept) : len(kept) + len(part.indices)] = part.features
            kept += part.indices
            skipped += part.skipped
            bar.update(len(indices))
    if not kept:
        raise ValueError(f"none of the {len(data)} images can be read, the first: {skipped[0]}")
    items = [data[i] for i in kept]
    return {
        "features": features[: len(kept)],
        "labels": torch.tensor([item.label for item in items], dtype=torch.long),
        "classnames": data.classnames,
        "domains": [item.domain for item in items],
        "keys": [item.key for item in items],
        "skipped": skipped,
    }


def bank_fingerprint(
    clip: Encoder,
    data: ImageSet,
    views: int = 1,
    *,
    augment: Augment | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """The fingerprint a bank of these settings has, for `FeatureBank.load(path, expect=...)`.

    Reads every file of `data` once, decodes none.
    """
    return Extraction(clip, data, views, augment, seed, dtype).fingerprint()


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a bank that `extract_shards` made; FileNotFoundError if it is not finished, ValueError if bad."""
    return SHARDS.read_manifest(folder)


def _check_features(features: Tensor, labels: Tensor, names: tuple[str, ...], backbone: Mapping[str, Any]) -> None:
    width = backbone["embed_dim"]
    if features.ndim != 2 or features.shape[1] != width or not len(features):
        raise ValueError(f"features of {backbone['name']} have shape (N, {width}), got {tuple(features.shape)}")
    if labels.shape != features.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{len(features)} features need as many whole-number labels, got {tuple(labels.shape)} of {labels.dtype}"
        )
    if len(set(names)) != len(names):
        raise ValueError(f"classnames repeats {sorted({n for n in names if names.count(n) > 1})[:3]}; each name once")
    outside = labels[(labels < 0) | (labels >= len(names))]
    if len(outside):
        raise ValueError(f"label {int(outside[0])} is outside 0 .. {len(names) - 1}, the {len(names)} classnames")
    lengths = features.norm(dim=-1)
    bad = (~(lengths.isfinite() & (lengths > 0))).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"features in rows {bad[:3]} are zero or not finite ({len(bad)} of {len(features)}); drop them"
        )

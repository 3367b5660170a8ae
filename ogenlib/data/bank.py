"""Image features computed once and kept: the frozen image tower's output for every image and view.

Notation: `N` images, `V` views, `C` classes, `D` embedding, `B` rows of a training batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ogenlib.data.augment import Augment, Augmenter
from ogenlib.data.dataset import ImageSet, name_indices, read_failure, short_hash
from ogenlib.files import atomic_write

FORMAT = "ogenlib.bank/1"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Features of N images in V views.

    features: (N, V, D) unit rows, in the storage dtype, on the CPU unless moved.
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

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        n, views, dim = self.features.shape
        return f"FeatureBank({n} images, {views} views, {dim} dims, {len(self.classnames)} classes)"

    # ------------------------------------------------------------------ selecting

    def subset(self, indices: Tensor | Sequence[int]) -> FeatureBank:
        """The rows at `indices` (int64 or bool mask), copied out of the file they are mapped from."""
        rows = torch.as_tensor(indices)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows.long()
        return self._take(rows, f"rows:{short_hash(rows.tolist())}")

    def select(self, names: Iterable[str]) -> FeatureBank:
        """The images of `names`, relabelled 0.. in the order of `names`; ValueError for an unknown name."""
        chosen = name_indices(names, self.classnames, "this bank")
        new = torch.full((len(self.classnames),), -1)
        new[chosen] = torch.arange(len(chosen))
        labels = new[self.labels.cpu()]
        names = tuple(self.classnames[i] for i in chosen)
        taken = self._take((labels >= 0).nonzero().flatten(), f"classes:{short_hash(names)}")
        return replace(taken, labels=labels[labels >= 0].to(self.labels.device), classnames=names)

    def of_domain(self, domain: str) -> FeatureBank:
        """The images of one domain; ValueError for a domain that no image has."""
        rows = [i for i, name in enumerate(self.domains) if name == domain]
        if not rows:
            known = ", ".join(map(repr, sorted(set(self.domains))))
            raise ValueError(f"no image of this bank is of domain {domain!r}; the domains are {known}")
        return self._take(torch.tensor(rows), f"domain:{domain}")

    def _take(self, rows: Tensor, step: str) -> FeatureBank:
        data = self.fingerprint.get("data", {})  # a part must not pass for the whole when it is saved
        fingerprint = {**self.fingerprint, "data": {**data, "selected": [*data.get("selected", []), step]}}
        on_device = rows.to(self.features.device)
        return replace(
            self,
            features=self.features[on_device],
            labels=self.labels[on_device],
            domains=[self.domains[i] for i in rows.tolist()],
            keys=[self.keys[i] for i in rows.tolist()],
            fingerprint=fingerprint,
        )

    def to(self, device: torch.device | str) -> FeatureBank:
        """The same bank with features and labels on `device`."""
        return replace(self, features=self.features.to(device), labels=self.labels.to(device))

    def view(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, D) float32: one view drawn at random for each row of `indices` (B,).

        generator: a CPU generator; the draws do not depend on the device the features are on.
        """
        views = self.features.shape[1]
        drawn = torch.randint(views, (len(indices),), generator=generator).to(self.features.device)
        return self.features[indices.to(self.features.device), drawn].float()

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; an existing file is replaced."""
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
            "features": self.features.detach().cpu().contiguous(),
            "labels": self.labels.cpu().contiguous(),
            "domain": torch.tensor([code[domain] for domain in self.domains], dtype=torch.int32),
            # as a tensor: safetensors limits its header to 100 MB, which a million keys would reach
            "keys": _to_bytes(self.keys),
        }
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"bank": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None) -> FeatureBank:
        """Open a saved bank; features are mapped from the file and read when they are used.

        expect: the fingerprint the bank must have (`bank_fingerprint(...)`, or only some of its fields).
        Raises FileNotFoundError; ValueError if the file is no bank, or for a stale bank, naming every field
        that differs.
        """
        header = _read_header(path)
        if expect is not None:
            _refuse_stale(path, header["fingerprint"], expect)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("features", "labels", "domain", "keys")}
        return cls(
            features=tensors["features"],
            labels=tensors["labels"],
            classnames=tuple(header["classnames"]),
            domains=[header["domains"][i] for i in tensors["domain"].tolist()],
            keys=_from_bytes(tensors["keys"]),
            fingerprint=header["fingerprint"],
            skipped=header["skipped"],
        )

    # ------------------------------------------------------------------ extraction

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
        dtype: float32, float16 or bfloat16 storage; rows are normalised in float32 first.
        path: where the bank goes. A bank with the same fingerprint that is already there is loaded; another
            is refused, or replaced with `overwrite`. Finished parts are kept in `path.partial/`, so a run
            that was killed goes on where it stopped; the folder disappears when the bank is complete.
        skip_bad: leave out and count (`.skipped`) images that cannot be read, instead of stopping.
        chunk_views: how many images times views a part holds: the most work that a kill can lose.
        Raises ValueError or FileNotFoundError naming the image that cannot be read, ValueError for a stale
        bank or part at `path`, bad settings, or features that are not finite.
        """
        if views < 1 or batch_size < 1 or chunk_views < 1 or dtype not in _DTYPES.values():
            raise ValueError(
                f"views={views}, batch_size={batch_size}, chunk_views={chunk_views}, dtype={dtype}: the numbers "
                f"must be 1 or more, and the dtype float32, float16 or bfloat16"
            )
        if not len(data):
            raise ValueError("the image set is empty; there is nothing to extract")
        fingerprint = bank_fingerprint(clip, data, views, augment=augment, seed=seed, dtype=dtype)
        if path is not None and Path(path).exists() and not overwrite:
            bank = cls.load(path, expect=fingerprint)
            if bank.skipped and not skip_bad:
                raise ValueError(
                    f"{path}: this bank was made without {len(bank.skipped)} bad images, the first of them "
                    f"{bank.skipped[0]}; accept that with skip_bad=True, or repair them and overwrite=True"
                )
            return bank
        parts = _Parts(path, fingerprint, max(1, chunk_views // views), overwrite)
        view_maker = _view_maker(clip, views, augment, seed)
        features = torch.empty(0)
        kept: list[int] = []
        skipped: list[dict[str, str]] = []
        with (
            _eval_mode(clip),
            torch.no_grad(),
            tqdm(total=len(data), desc="extracting features", unit="image", disable=not progress) as bar,
        ):
            for start in range(0, len(data), parts.images):
                rows = range(start, min(start + parts.images, len(data)))
                part = parts.load(start)
                if part is None:
                    part = _encode(clip, data, rows, view_maker, views, batch_size, dtype, skip_bad)
                    parts.save(start, part)
                if part.skipped and not skip_bad:
                    raise ValueError(
                        f"{part.skipped[0]['file']}: was left out by an earlier run with skip_bad=True; "
                        f"pass it again, or repair the image and overwrite=True"
                    )
                if part.rows:
                    if not features.numel():
                        features = torch.empty(len(data), *part.features.shape[1:], dtype=dtype)
                    features[len(kept) : len(kept) + len(part.rows)] = part.features
                kept += part.rows
                skipped += part.skipped
                bar.update(len(rows))
        if not kept:
            raise ValueError(f"none of the {len(data)} images can be read, the first: {skipped[0]}")
        items = [data[i] for i in kept]
        bank = cls(
            features=features[: len(kept)],
            labels=torch.tensor([item.label for item in items], dtype=torch.long),
            classnames=data.classnames,
            domains=[item.domain for item in items],
            keys=[item.key for item in items],
            fingerprint=fingerprint,
            skipped=skipped,
        )
        if path is None:
            return bank
        bank.save(path)
        parts.remove()
        return cls.load(path)


def bank_fingerprint(
    clip: Encoder,
    data: ImageSet,
    views: int = 1,
    *,
    augment: Augment | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """What a bank of these settings is made from: for `FeatureBank.load(path, expect=...)`. Reads every file."""
    augmented = views > 1
    fingerprint = {
        "backbone": clip.fingerprint(),
        "data": {"hash": data.hash(), "content": data.content_hash(), "images": len(data)},
        "views": views,
        "augment": (augment or Augment()).as_dict() if augmented else None,
        "seed": seed if augmented else None,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return json.loads(json.dumps(fingerprint))  # as it comes back from a file: tuples are lists


def _read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such bank; make it with FeatureBank.extract(..., path=...)")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("bank", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no safetensors file that can be read ({error})") from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: is no feature bank of format {FORMAT} (found {header.get('format')}); "
            f"make one with FeatureBank.extract(..., path=...)"
        )
    return header


def _refuse_stale(path: str | os.PathLike[str], saved: Any, expect: Mapping[str, Any]) -> None:
    expected = json.loads(json.dumps(dict(expect)))
    different = [
        line for name in expected for line in _differences(name, saved.get(name, "nothing"), expected[name])
    ]
    if different:
        raise ValueError(
            f"{path}: this bank was made from something else: {'; '.join(different)}. Extract it again "
            f"(another path, or overwrite=True), or load what it was made from"
        )


def _differences(name: str, saved: Any, expected: Any) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(expected, dict):
        for key in sorted({*saved, *expected}):
            yield from _differences(f"{name}.{key}", saved.get(key, "nothing"), expected.get(key, "nothing"))
    elif saved != expected:
        yield f"{name} is {saved}, expected {expected}"


def _to_bytes(texts: list[str]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)


def _from_bytes(raw: Tensor) -> list[str]:
    return json.loads(raw.numpy().tobytes().decode())


# ---------------------------------------------------------------------- one part of an extraction


@dataclass(frozen=True)
class _Part:
    """Features (n, V, D) of the images `rows`, and what was left out on the way."""

    features: Tensor
    rows: list[int]
    skipped: list[dict[str, str]]


def _view_maker(
    clip: Encoder, views: int, augment: Augment | None, seed: int
) -> Callable[[Image.Image, str], list[Tensor]]:
    if views == 1:
        return lambda image, key: [clip.preprocess(image)]
    augmenter = Augmenter(clip.preprocess_cfg, augment)
    return lambda image, key: [augmenter(image, seed=seed, key=key, view=v) for v in range(views)]


def _encode(
    clip: Encoder,
    data: ImageSet,
    rows: Iterable[int],
    make_views: Callable[[Image.Image, str], list[Tensor]],
    views: int,
    batch_size: int,
    dtype: torch.dtype,
    skip_bad: bool,
) -> _Part:
    kept: list[int] = []
    skipped: list[dict[str, str]] = []
    waiting: list[Tensor] = []
    encoded: list[Tensor] = []

    def flush(least: int) -> None:
        while len(waiting) >= least and waiting:
            pixels = torch.stack(waiting[:batch_size]).to(clip.device)
            del waiting[:batch_size]
            encoded.append(F.normalize(clip.encode_image(pixels, normalize=False).float(), dim=-1).cpu())

    for row in rows:
        try:
            image = data.open(row)
        except (FileNotFoundError, ValueError) as error:
            if not skip_bad:
                raise
            skipped.append({"file": data[row].file, "reason": read_failure(error)})
            continue
        kept.append(row)
        waiting += make_views(image, data[row].key)
        flush(batch_size)
    flush(1)
    if not kept:
        return _Part(torch.empty(0), kept, skipped)
    features = torch.cat(encoded).unflatten(0, (len(kept), views))
    broken = (~features.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{data[kept[broken[0]]].file}: the image tower's output is not finite (so for {len(broken)} "
            f"images); half precision may overflow, try load_backbone(..., precision='fp32')"
        )
    return _Part(features.to(dtype), kept, skipped)


class _Parts:
    """Finished parts in `path.partial/`, one safetensors file each; does nothing without a path."""

    def __init__(
        self, path: str | os.PathLike[str] | None, fingerprint: dict[str, Any], images: int, overwrite: bool
    ) -> None:
        """Raises ValueError if parts of other settings are there and `overwrite` is off."""
        self.images = images
        self._folder = None if path is None else Path(f"{os.fspath(path)}.partial")
        if self._folder is None:
            return
        plan = self._folder / "plan.json"
        if overwrite:
            self.remove()
        if plan.is_file():
            saved = json.loads(plan.read_text(encoding="utf-8"))
            _refuse_stale(self._folder, saved["fingerprint"], fingerprint)
            self.images = saved["images"]  # parts must line up with those that are finished
            return
        with atomic_write(plan) as temporary:
            temporary.write_text(json.dumps({"fingerprint": fingerprint, "images": images}), encoding="utf-8")

    def _file(self, start: int) -> Path | None:
        return None if self._folder is None else self._folder / f"from-{start:09d}.safetensors"

    def load(self, start: int) -> _Part | None:
        file = self._file(start)
        if file is None or not file.is_file():
            return None
        with safe_open(file, framework="pt") as opened:
            skipped = json.loads(opened.metadata()["skipped"])
            return _Part(opened.get_tensor("features"), opened.get_tensor("rows").tolist(), skipped)

    def save(self, start: int, part: _Part) -> None:
        file = self._file(start)
        if file is None:
            return
        tensors = {"features": part.features.contiguous(), "rows": torch.tensor(part.rows, dtype=torch.long)}
        with atomic_write(file) as temporary:
            save_file(tensors, temporary, metadata={"skipped": json.dumps(part.skipped)})

    def remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _eval_mode(clip: Any) -> Iterator[None]:
    """Put every module of `clip` in eval mode, and back the ones that were not."""
    training = [m for m in clip.modules() if m.training] if isinstance(clip, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""A pool of image-text pairs to retrieve from: their features by a CLIP model, their texts and their keys.

Notation: `N` pairs, `D` embedding, `Q` queries, `k` neighbours, `R` pairs asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.anchors.strings import Strings
from ogenlib.anchors.top_k import exact_top_k
from ogenlib.data.bank_file import FLOATS, check_fingerprint
from ogenlib.data.extract import refuse_stale
from ogenlib.data.shard_plan import MANIFEST, Manifest, ShardFormat
from ogenlib.utils.documents import DamagedFile, conform
from ogenlib.utils.tensors import open_tensors, write_tensors

FORMAT = "ogenlib.pool/1"
POOL_SHARDS = ShardFormat(
    "pool", "extract_pool(clip, images, captions, {})", "ogenlib.pool-plan/1", "ogenlib.pool-manifest/1"
)
SIDES = ("images", "texts")
WHAT, FIX = "a pool of image-text pairs", "make it anew with extract_pool(clip, images, captions, folder)"
_TENSORS = ("images", "keys", "key_ends", "captions", "caption_ends")
BLOCK = 65536  # features that are turned to fp32 at a time: 128 MiB at D = 512


class _Header(TypedDict):
    fingerprint: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PoolPart:
    """Some pairs of a pool, in one file or in memory.

    images, texts: unit vectors `(n, D)` of the same float type; texts may be absent.
    keys, captions: n each.
    """

    images: Tensor
    texts: Tensor | None
    keys: Strings
    captions: Strings

    def __post_init__(self) -> None:
        n, shape = len(self.images), tuple(self.images.shape)
        texts = shape if self.texts is None else tuple(self.texts.shape)
        if len(shape) != 2 or texts != shape or not len(self.keys) == len(self.captions) == n:
            raise ValueError(
                f"{n} pairs need image and text features of one shape (n, D) and as many keys and captions; got "
                f"{shape}, {texts}, {len(self.keys)} keys and {len(self.captions)} captions"
            )

    def save(self, path: str | os.PathLike[str], fingerprint: Mapping[str, Any]) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {
            "images": self.images,
            "keys": self.keys.data,
            "key_ends": self.keys.ends,
            "captions": self.captions.data,
            "caption_ends": self.captions.ends,
        }
        if self.texts is not None:
            tensors["texts"] = self.texts
        write_tensors(path, tensors, {"pool": json.dumps({"format": FORMAT, "fingerprint": fingerprint})})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[PoolPart, dict[str, Any]]:
        """The pairs of a file, mapped from it, and their fingerprint; the file is read once to be checked.

        Raises FileNotFoundError; ValueError for what is no pool, or damaged.
        """
        file = open_tensors(path, what=WHAT, fix=FIX)
        header = file.header("pool", WHAT, FIX)
        version = header.get("format") if isinstance(header, dict) else None
        if version != FORMAT:
            raise DamagedFile(f"{path} is no pool of format {FORMAT} (its format is {version!r}); {FIX}")
        fingerprint = conform(header, _Header, path, WHAT, FIX)["fingerprint"]
        check_fingerprint(fingerprint, path, WHAT, FIX)
        tensors = file.tensors
        missing = [name for name in _TENSORS if name not in tensors]
        if missing:
            raise DamagedFile(f"{path} is no pool: it lacks the tensors {', '.join(missing)}; {FIX}")
        images, texts = tensors["images"], tensors.get("texts")
        try:
            keys = Strings(tensors["keys"], tensors["key_ends"]).check()
            captions = Strings(tensors["captions"], tensors["caption_ends"]).check()
            part = cls(images, texts, keys, captions)
        except ValueError as error:
            raise DamagedFile(f"{path} is no pool: {error}; {FIX}") from error
        if images.dtype not in FLOATS or (texts is not None and texts.dtype != images.dtype):
            kinds = f"{images.dtype}" if texts is None else f"{images.dtype} and {texts.dtype}"
            raise DamagedFile(f"{path} is no pool: its features are {kinds}, not of one float type; {FIX}")
        return part, fingerprint


class CandidatePool:
    """N image-text pairs in parts that need not fit in memory together.

    Made by `extract_pool`, or by `from_features` of features that somebody else computed. Rows are numbered through
    all parts. Nothing is copied: features of a saved pool are read from their files when they are used.

    Attributes:
        parts: see `PoolPart`.
        fingerprint: what it was made from, JSON-able.
    """

    def __init__(self, parts: Sequence[PoolPart], fingerprint: Mapping[str, Any]) -> None:
        if not parts or not any(len(part.images) for part in parts):
            raise ValueError("the pool is empty; give it at least one image-text pair")
        widths = {(part.images.shape[1], part.texts is None) for part in parts}
        if len(widths) > 1:
            raise ValueError("the parts of the pool differ in width, or only some have features of their texts")
        self.parts, self.fingerprint = tuple(parts), dict(fingerprint)
        self.starts = torch.tensor([0, *(len(part.images) for part in parts)]).cumsum(0).tolist()

    def __len__(self) -> int:
        return self.starts[-1]

    def __repr__(self) -> str:
        sides = "images and texts" if self.has_texts else "images"
        return f"CandidatePool({len(self)} pairs, {self.embed_dim} dims, {len(self.parts)} parts, features of {sides})"

    @property
    def embed_dim(self) -> int:
        """Length D of a feature."""
        return int(self.parts[0].images.shape[1])

    @property
    def has_texts(self) -> bool:
        """Whether there are features of the texts."""
        return self.parts[0].texts is not None

    # ------------------------------------------------------------------ reading

    def _side(self, part: PoolPart, side: str) -> Tensor:
        if side not in SIDES:
            raise ValueError(f"side={side!r}: must be one of {', '.join(SIDES)}")
        if side == "images":
            return part.images
        if part.texts is None:
            raise ValueError("this pool has no features of its texts; make it with extract_pool(..., texts=True)")
        return part.texts

    def blocks(self, side: str = "images", size: int = BLOCK) -> Iterator[tuple[int, Tensor]]:
        """(first index, features `(n, D)`) of at most `size` pairs each, in order, in the type they are kept in."""
        for start, part in zip(self.starts, self.parts, strict=False):
            features = self._side(part, side)
            for first in range(0, len(features), size):
                yield start + first, features[first : first + size]

    def features(self, rows: Tensor | Sequence[int], side: str = "images") -> Tensor:
        """`(R, D)`, fp32: the features of some pairs."""
        indices = torch.as_tensor(rows, dtype=torch.long).cpu()
        self._check_indices(indices)
        features = torch.empty(len(indices), self.embed_dim)
        for start, part in zip(self.starts, self.parts, strict=False):
            inside = (indices >= start) & (indices < start + len(part.images))
            if inside.any():
                features[inside] = self._side(part, side)[indices[inside] - start].float()
        return features

    def keys(self, rows: Tensor | Sequence[int]) -> list[str]:
        """The names of some pairs' images."""
        return [part.keys[i] for part, i in self._places(rows)]

    def captions(self, rows: Tensor | Sequence[int]) -> list[str]:
        """The texts of some pairs."""
        return [part.captions[i] for part, i in self._places(rows)]

    def _places(self, indices: Tensor | Sequence[int]) -> list[tuple[PoolPart, int]]:
        numbers = torch.as_tensor(indices, dtype=torch.long).cpu()
        self._check_indices(numbers)
        parts = torch.searchsorted(torch.tensor(self.starts[1:]), numbers, right=True)
        pairs = zip(parts.tolist(), numbers.tolist(), strict=True)
        return [(self.parts[part], index - self.starts[part]) for part, index in pairs]

    def _check_indices(self, indices: Tensor) -> None:
        outside = indices[(indices < 0) | (indices >= len(self))]
        if indices.ndim != 1 or len(outside):
            shown = int(outside[0]) if len(outside) else tuple(indices.shape)
            raise ValueError(f"rows {shown}: pass a list of numbers from 0 to {len(self) - 1}")

    def search(self, queries: Tensor, k: int, side: str = "images", block: int = BLOCK) -> tuple[Tensor, Tensor]:
        """Cosines `(Q, k)` and indices `(Q, k)` of the nearest pairs, exact; see `exact_top_k` for what it raises.

        side: whether queries are compared with the pairs' images or with their texts.
        block: pairs read at a time; it changes results by rounding only.
        """
        return exact_top_k(queries, self.blocks(side, block), k)

    # ------------------------------------------------------------------ making

    @classmethod
    def from_features(
        cls,
        images: Tensor,
        captions: Sequence[str],
        texts: Tensor | None = None,
        keys: Sequence[str] | None = None,
        *,
        dtype: torch.dtype = torch.float16,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> CandidatePool:
        """A pool of features `(N, D)` that were computed elsewhere; kept as unit vectors in `dtype`.

        keys: None for ``row/0``, ``row/1``, ...
        Raises ValueError for shapes that do not match, and features that are zero or not finite.
        """
        names = keys if keys is not None else [f"row/{i}" for i in range(len(images))]
        sides = {"images": unit_rows(images, dtype), "texts": None if texts is None else unit_rows(texts, dtype)}
        part = PoolPart(sides["images"], sides["texts"], Strings.of(names), Strings.of(captions))  # type: ignore[arg-type]
        return cls([part], fingerprint or {})

    @classmethod
    def join(cls, pools: Sequence[CandidatePool]) -> CandidatePool:
        """One pool of several, in their order; nothing is copied, and a pair that two of them hold is there twice."""
        parts = [part for pool in pools for part in pool.parts]
        return cls(parts, {"joined": [pool.fingerprint for pool in pools]})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file of a pool in one part; ValueError for one in several, which has its files."""
        if len(self.parts) > 1:
            raise ValueError(f"this pool has {len(self.parts)} parts, each in its own file; save every part by itself")
        self.parts[0].save(path, self.fingerprint)

    @classmethod
    def load(cls, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None) -> CandidatePool:
        """Open a pool: a file, or a folder that `extract_pool` made; features are mapped from the files.

        expect: the fingerprint it must have, or only some of its fields.
        Raises FileNotFoundError; ValueError for what is no pool, or one made from something else.
        """
        if not Path(path).is_dir():
            part, fingerprint = PoolPart.load(path)
            pool = cls([part], fingerprint)
        else:
            pool = cls._of_shards(Path(path), POOL_SHARDS.read_manifest(path))
        if expect is not None:
            refuse_stale(path, pool.fingerprint, expect)
        return pool

    @classmethod
    def _of_shards(cls, folder: Path, manifest: Manifest) -> CandidatePool:
        parts = []
        for shard in manifest["shards"]:
            if not shard["rows"]:
                continue
            file = POOL_SHARDS.member(folder, shard["file"], shard.get("digest"))
            part, _ = PoolPart.load(file)
            if len(part.images) != shard["rows"]:
                raise DamagedFile(f"{file} has {len(part.images)} pairs, and {MANIFEST} {shard['rows']}; {FIX}")
            parts.append(part)
        check_fingerprint(manifest["fingerprint"], folder / MANIFEST, WHAT, FIX)
        try:
            return cls(parts, manifest["fingerprint"])
        except ValueError as error:
            raise DamagedFile(f"{folder}: {error}") from error


def unit_rows(features: Tensor, dtype: torch.dtype) -> Tensor:
    """`(N, D)` on the CPU in `dtype`, normalised in fp32; ValueError for features of length zero or not finite."""
    vectors = torch.as_tensor(features).detach().cpu().float()
    if vectors.ndim != 2:
        raise ValueError(f"features are {tuple(vectors.shape)}, expected (N, D)")
    lengths = vectors.norm(dim=-1)
    bad = (~(lengths.isfinite() & (lengths > 0))).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"features in rows {bad[:3]} are zero or not finite ({len(bad)} of {len(vectors)}); drop them")
    return F.normalize(vectors, dim=-1).to(dtype)

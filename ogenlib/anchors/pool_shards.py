"""A candidate pool made from images and captions, by one process or by several that share a folder.

Every process makes its shards, which are pools of their own; the manifest joins them where they lie, so that a pool
of a hundred million pairs is never copied and never in memory. The plan is that of a feature bank's shards.

Notation: `N` pairs, `D` embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ogenlib.anchors.pool import POOL_SHARDS, CandidatePool, PoolPart, unit_rows
from ogenlib.anchors.strings import Strings
from ogenlib.data.bank import FeatureBank, bank_fingerprint
from ogenlib.data.dataset import ImageSet, short_hash
from ogenlib.data.extract import Encoder
from ogenlib.utils.tensors import recorded_digest

TEXTS = 4096  # captions that are encoded between two look-ups


class PairEncoder(Encoder, Protocol):
    """What making a pool needs of a backbone."""

    def encode_text(self, texts: list[str], normalize: bool = True) -> Tensor: ...


def extract_pool(
    clip: PairEncoder,
    images: ImageSet,
    captions: Mapping[str, str | Sequence[str]],
    folder: str | os.PathLike[str],
    *,
    texts: bool = True,
    dtype: torch.dtype = torch.float16,
    rank: int = 0,
    count: int = 1,
    barrier: Callable[[], None] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> CandidatePool:
    """Features of `images` and of their captions, in `folder`; every process calls it with its `rank` of `count`.

    Args:
        images: their labels do not matter.
        captions: key of an image -> its text, for every image; of several texts the first is kept.
        texts: whether to encode the captions too; retrieval by image similarity does without.
        dtype: float16, float32 or bfloat16 storage.
        barrier: waits for all processes; needed for more than one (`ogenlib.utils.distributed.barrier` under torchrun).
        options: `batch_size`, `progress`, `skip_bad` and `chunk_views` of `FeatureBank.extract`.

    A killed run goes on where it stopped, also with another number of processes.

    Raises:
        ValueError: images without a caption (named), a caption the text tower cannot read, or what `ShardFormat.make`
            and `FeatureBank.extract` refuse.
        FileExistsError: `folder` is a file.
    """
    told = _first_captions(images, captions)

    def describe() -> tuple[dict[str, Any], int]:
        made_from = bank_fingerprint(clip, images, dtype=dtype)
        return {**made_from, "captions": short_hash(list(told.values())), "texts": texts}, len(images)

    def shard(path: Path, indices: range) -> None:
        if path.is_file():
            return
        # An ordinary bank while it grows: that is what makes a killed run go on.
        bank_file = path.with_suffix(".images.safetensors")
        bank = FeatureBank.extract(clip, images.subset(indices), dtype=dtype, path=bank_file, **options)
        lines = [told[key] for key in bank.keys]
        encoded = _encode_texts(clip, lines, dtype) if texts else None
        part = PoolPart(bank.features[:, 0], encoded, Strings.of(bank.keys), Strings.of(lines))
        part.save(path, {**bank.fingerprint, "texts": texts})
        bank_file.unlink()

    POOL_SHARDS.make(
        folder, describe, shard, lambda: _join(folder), rank=rank, count=count, barrier=barrier, overwrite=overwrite
    )
    return CandidatePool.load(folder)


def join_shards(folder: str | os.PathLike[str]) -> CandidatePool:
    """Write the manifest of finished shards and open the pool.

    Raises FileNotFoundError naming the shards that are not finished, ValueError for one of another backbone.
    """
    _join(folder)
    return CandidatePool.load(folder)


def _join(folder: str | os.PathLike[str]) -> None:
    plan = POOL_SHARDS.read_plan(folder)
    shared = plan.shared(("backbone", "dtype", "texts"))
    shards = []
    for path in plan.finished():
        pool = CandidatePool.load(path, expect=shared)
        shards.append({"file": path.name, "rows": len(pool), "digest": recorded_digest(path)})
    POOL_SHARDS.write_manifest(
        plan.folder, {"fingerprint": plan.fingerprint, "rows": sum(shard["rows"] for shard in shards), "shards": shards}
    )


@torch.no_grad()
def _encode_texts(clip: PairEncoder, texts: list[str], dtype: torch.dtype) -> Tensor:
    parts = [clip.encode_text(texts[i : i + TEXTS]).cpu() for i in range(0, len(texts), TEXTS)]
    return unit_rows(torch.cat(parts), dtype)


def _first_captions(images: ImageSet, captions: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Key of every image -> its first text; ValueError naming images that have none."""
    told = {}
    for key in images.keys:
        texts = captions.get(key, "")
        told[key] = texts if isinstance(texts, str) else next(iter(texts), "")
    missing = [key for key, text in told.items() if not text.strip()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images have no caption, the first {missing[:3]}; "
            "write some (caption_table(images, captioner)) or leave these images out"
        )
    return told

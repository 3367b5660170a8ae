"""A feature bank made by several processes: each writes shards, a manifest joins them in one memory-mapped file.

A folder holds `plan.json` (what is extracted, and which images each shard holds), `shard-00000-of-00004.safetensors`
(ordinary banks, with their own finished parts while they grow), and at the end `bank.safetensors` with
`manifest.json`, which is written last: without it the bank is unfinished, and the same call goes on.

Notation: `N` images, `V` views, `D` embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ogenlib.data.augment import Augment
from ogenlib.data.bank import SHARDS, FeatureBank, bank_fingerprint
from ogenlib.data.dataset import ImageSet
from ogenlib.data.extract import Encoder
from ogenlib.data.shard_plan import ShardPlan
from ogenlib.utils.documents import DIGEST, DamagedFile
from ogenlib.utils.files import atomic_write
from ogenlib.utils.tensors import EMPTY, seal

MERGED = SHARDS.merged[0]

# the safetensors format's own names, https://github.com/huggingface/safetensors#format
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8",
}  # fmt: skip


def extract_shards(
    clip: Encoder,
    data: ImageSet,
    folder: str | os.PathLike[str],
    views: int = 1,
    *,
    rank: int = 0,
    count: int = 1,
    barrier: Callable[[], None] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    keep_shards: bool = False,
    **options: Any,
) -> FeatureBank:
    """`FeatureBank.extract` by `count` processes that share `folder`; every process calls it with its `rank`.

    barrier: waits for all processes; needed for more than one (`ogenlib.utils.distributed.barrier` under torchrun).
    keep_shards: leave the shards beside the merged bank; they hold the same features once more.
    options: `batch_size`, `progress`, `skip_bad` and `chunk_views` of `FeatureBank.extract`.
    A killed run goes on where it stopped, also with another number of processes: the shards of the first run stay.
    The result is the bank that one process makes, with the same fingerprint, mapped from the merged file.
    Raises ValueError for a rank that is not below count, a missing barrier, or what is in `folder` for other settings;
    FileExistsError if `folder` is a file; and what `FeatureBank.extract` raises.
    """

    def describe() -> tuple[dict[str, Any], int]:
        return bank_fingerprint(clip, data, views, augment=augment, seed=seed, dtype=dtype), len(data)

    def shard(path: Path, indices: range) -> None:
        part = data.subset(indices)
        FeatureBank.extract(clip, part, views, augment=augment, seed=seed, dtype=dtype, path=path, **options)

    SHARDS.make(
        folder,
        describe,
        shard,
        lambda: _merge(folder, keep_shards),
        rank=rank,
        count=count,
        barrier=barrier,
        overwrite=overwrite,
    )
    return FeatureBank.load(folder)


def read_plan(folder: str | os.PathLike[str]) -> ShardPlan:
    """What an extraction in `folder` set out to do; FileNotFoundError or ValueError if there is no plan to read."""
    return SHARDS.read_plan(folder)


def merge_shards(folder: str | os.PathLike[str], *, keep_shards: bool = False) -> FeatureBank:
    """Join the finished shards of `folder` in one file, write the manifest, and open the result.

    Features are copied shard by shard, so memory does not grow with N.
    Raises FileNotFoundError naming the shards that are not finished, ValueError for one of other settings.
    """
    _merge(folder, keep_shards)
    return FeatureBank.load(folder)


def _merge(folder: str | os.PathLike[str], keep_shards: bool) -> None:
    plan = read_plan(folder)
    shared = plan.shared(("backbone", "views", "augment", "seed", "dtype"))
    banks = [FeatureBank.load(path, expect=shared) for path in plan.finished()]
    digest = _write_merged(plan.folder / MERGED, banks, plan.fingerprint)
    shards = [
        {"file": path.name, "images": [start, stop], "rows": len(bank), "skipped": len(bank.skipped)}
        for path, bank, start, stop in zip(plan.files, banks, plan.bounds[:-1], plan.bounds[1:], strict=True)
    ]
    SHARDS.write_manifest(
        plan.folder,
        {
            "bank": MERGED,
            "digest": digest,
            "fingerprint": plan.fingerprint,
            "rows": sum(map(len, banks)),
            "shards": shards,
            "shards_kept": keep_shards,
        },
    )
    if not keep_shards:
        for path in plan.files:
            path.unlink(missing_ok=True)


def _write_merged(path: Path, banks: list[FeatureBank], fingerprint: dict[str, Any]) -> str:
    """One bank file of all features, and its digest; features go from file to file without being in memory together."""
    first = banks[0]
    for bank in banks:
        if (bank.classnames, bank.features.shape[1:]) != (first.classnames, first.features.shape[1:]):
            raise DamagedFile(f"{path.parent}: its shards differ in classes or shape; pass overwrite=True")
    count = sum(len(bank) for bank in banks)
    whole = FeatureBank(
        features=torch.empty(count, *first.features.shape[1:], dtype=first.features.dtype, device="meta"),
        labels=torch.cat([bank.labels for bank in banks]),
        classnames=first.classnames,
        domains=[domain for bank in banks for domain in bank.domains],
        keys=[key for bank in banks for key in bank.keys],
        fingerprint=fingerprint,
        skipped=[skipped for bank in banks for skipped in bank.skipped],
    )
    header, tensors = whole.contents()
    pieces = {name: [tensor] for name, tensor in tensors.items()} | {"features": [bank.features for bank in banks]}
    # falling element sizes keep every tensor aligned without gaps, which the format does not allow
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    described: dict[str, Any] = {"__metadata__": {"bank": json.dumps(header), DIGEST: EMPTY}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        described[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(described, separators=(",", ":")).encode()  # as `seal` looks for the digest's place
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                for piece in pieces[name]:
                    file.write(piece.contiguous().view(torch.uint8).numpy().data)
        return seal(temporary)

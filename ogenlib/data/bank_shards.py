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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ogenlib.data.augment import Augment
from ogenlib.data.bank import MANIFEST, MANIFEST_FORMAT, FeatureBank, bank_fingerprint, read_manifest
from ogenlib.data.dataset import ImageSet
from ogenlib.data.extract import Encoder, refuse_stale
from ogenlib.files import atomic_write, write_json

PLAN, MERGED = "plan.json", "bank.safetensors"
PLAN_FORMAT = "ogenlib.bank-plan/1"

# the safetensors format's own names, https://github.com/huggingface/safetensors#format
_DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.uint8: "U8",
}  # fmt: skip


@dataclass(frozen=True)
class ShardPlan:
    """fingerprint: of the whole bank. bounds: shard i holds the images bounds[i] to bounds[i + 1]."""

    folder: Path
    fingerprint: dict[str, Any]
    bounds: tuple[int, ...]

    @property
    def files(self) -> list[Path]:
        """The shards' files, in the order of the images."""
        count = len(self.bounds) - 1
        return [self.folder / f"shard-{i:05d}-of-{count:05d}.safetensors" for i in range(count)]


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

    barrier: waits for all processes; needed for more than one (`ogenlib.distributed.barrier` under torchrun).
    keep_shards: leave the shards beside the merged bank; they hold the same features once more.
    options: `batch_size`, `progress`, `skip_bad` and `chunk_views` of `FeatureBank.extract`.
    A killed run goes on where it stopped, also with another number of processes: the shards of the first run stay.
    The result is the bank that one process makes, with the same fingerprint, mapped from the merged file.
    Raises ValueError for a rank that is not below count, a missing barrier, or what is in `folder` for other settings;
    FileExistsError if `folder` is a file; and what `FeatureBank.extract` raises.
    """
    if not 0 <= rank < count:
        raise ValueError(f"rank is {rank} of count {count} processes; ranks go from 0 to count - 1")
    if count > 1 and barrier is None:
        raise ValueError(f"{count} processes need barrier=, a function that waits for all of them")
    wait = barrier or (lambda: None)
    folder = Path(folder)
    if rank == 0:
        fingerprint = bank_fingerprint(clip, data, views, augment=augment, seed=seed, dtype=dtype)
        _prepare(folder, fingerprint, len(data), count, overwrite)
    wait()
    if not (folder / MANIFEST).is_file():
        plan = read_plan(folder)
        for i in range(rank, len(plan.files), count):
            rows = range(plan.bounds[i], plan.bounds[i + 1])
            FeatureBank.extract(clip, data.subset(rows), views, augment=augment, seed=seed, dtype=dtype,
                                path=plan.files[i], **options)  # fmt: skip
        wait()
        if rank == 0:
            merge_shards(folder, keep_shards=keep_shards)
        wait()
    return FeatureBank.load(folder)


def _prepare(folder: Path, fingerprint: dict[str, Any], images: int, count: int, overwrite: bool) -> None:
    """Refuse or clear what is of other settings; write the plan if there is none."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; shards need a folder, name another one")
    if overwrite:
        _clear(folder)
    elif (folder / MANIFEST).is_file():
        refuse_stale(folder, read_manifest(folder)["fingerprint"], fingerprint)
        return
    if (folder / PLAN).is_file():
        refuse_stale(folder, read_plan(folder).fingerprint, fingerprint)
        return
    shards = min(count, images)
    bounds = [images * i // shards for i in range(shards + 1)]
    write_json(folder / PLAN, {"format": PLAN_FORMAT, "fingerprint": fingerprint, "bounds": bounds})


def _clear(folder: Path) -> None:
    """Delete what an earlier extraction left, and nothing else; the manifest first, so that none is ever wrong."""
    for path in (folder / MANIFEST, folder / PLAN, folder / MERGED, *folder.glob("shard-*-of-*.safetensors")):
        path.unlink(missing_ok=True)
    for parts in folder.glob("shard-*-of-*.safetensors.partial"):
        for path in parts.iterdir():
            path.unlink()
        parts.rmdir()


def read_plan(folder: str | os.PathLike[str]) -> ShardPlan:
    """What an extraction in `folder` set out to do; FileNotFoundError or ValueError if there is no plan to read."""
    path = Path(folder) / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such plan; start one with extract_shards(clip, images, {str(folder)!r})")
    plan = json.loads(path.read_text(encoding="utf-8"))
    if plan.get("format") != PLAN_FORMAT:
        raise ValueError(f"{path}: is of format {plan.get('format')}, not {PLAN_FORMAT}; use another folder")
    return ShardPlan(Path(folder), plan["fingerprint"], tuple(plan["bounds"]))


def merge_shards(folder: str | os.PathLike[str], *, keep_shards: bool = False) -> FeatureBank:
    """Join the finished shards of `folder` in one file, write the manifest, and open the result.

    Features are copied shard by shard, so memory does not grow with N.
    Raises FileNotFoundError naming the shards that are not finished, ValueError for one of other settings.
    """
    plan = read_plan(folder)
    missing = [path.name for path in plan.files if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(plan.files)} shards are not finished, the first {missing[0]}; "
            f"run the same extraction again, it goes on where it stopped"
        )
    shared = {name: plan.fingerprint[name] for name in ("backbone", "views", "augment", "seed", "dtype")}
    banks = [FeatureBank.load(path, expect=shared) for path in plan.files]
    _write_merged(plan.folder / MERGED, banks, plan.fingerprint)
    shards = [
        {"file": path.name, "images": [start, stop], "rows": len(bank), "skipped": len(bank.skipped)}
        for path, bank, start, stop in zip(plan.files, banks, plan.bounds[:-1], plan.bounds[1:], strict=True)
    ]
    write_json(
        plan.folder / MANIFEST,
        {"format": MANIFEST_FORMAT, "bank": MERGED, "fingerprint": plan.fingerprint, "rows": sum(map(len, banks)),
         "shards": shards, "shards_kept": keep_shards},
    )  # fmt: skip
    if not keep_shards:
        for path in plan.files:
            path.unlink(missing_ok=True)
    return FeatureBank.load(plan.folder)


def _write_merged(path: Path, banks: list[FeatureBank], fingerprint: dict[str, Any]) -> None:
    """One bank file of all rows; the features go from file to file without being in memory together."""
    first = banks[0]
    rows = sum(len(bank) for bank in banks)
    whole = FeatureBank(
        features=torch.empty(rows, *first.features.shape[1:], dtype=first.features.dtype, device="meta"),
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
    described: dict[str, Any] = {"__metadata__": {"bank": json.dumps(header)}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        described[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for piece in pieces[name]:
                file.write(piece.contiguous().view(torch.uint8).numpy().data)

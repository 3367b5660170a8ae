"""Something large made by several processes: a plan says who makes which shard, a manifest says that all are there.

A folder holds `plan.json` (what is made, and which items each shard holds), `shard-00000-of-00004.safetensors`, and
at the end `manifest.json`, which is written last: without it the work is unfinished, and the same call goes on.

Notation: `N` items.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from ogenlib.data.extract import refuse_stale
from ogenlib.utils.documents import DamagedFile, conform, read_document, write_document
from ogenlib.utils.locks import hold
from ogenlib.utils.tensors import recorded_digest

PLAN, MANIFEST = "plan.json", "manifest.json"
_SHARDS = "shard-*-of-*.safetensors"


class _Plan(TypedDict):
    fingerprint: dict[str, Any]
    bounds: list[int]


class _ShardFacts(TypedDict, total=False):
    digest: str | None
    images: list[int]
    skipped: int


class Shard(_ShardFacts):
    """One shard as a manifest has it. digest: of its file."""

    file: str
    rows: int


class _Merged(TypedDict, total=False):
    bank: str
    digest: str | None
    shards_kept: bool


class Manifest(_Merged):
    """What a finished folder holds. bank, digest: the merged file and its digest, where shards are merged."""

    fingerprint: dict[str, Any]
    rows: int
    shards: list[Shard]


@dataclass(frozen=True)
class ShardPlan:
    """fingerprint: of the whole. bounds: shard i holds the items bounds[i] to bounds[i + 1]."""

    folder: Path
    fingerprint: dict[str, Any]
    bounds: tuple[int, ...]

    @property
    def files(self) -> list[Path]:
        """The shards' files, in the order of the items."""
        count = len(self.bounds) - 1
        return [self.folder / f"shard-{i:05d}-of-{count:05d}.safetensors" for i in range(count)]

    def shared(self, names: Iterable[str]) -> dict[str, Any]:
        """Some fields of the fingerprint, which every shard has too; ValueError for a plan without them."""
        missing = [name for name in names if name not in self.fingerprint]
        if missing:
            raise DamagedFile(f"{self.folder / PLAN}: its fingerprint lacks {', '.join(missing)}; pass overwrite=True")
        return {name: self.fingerprint[name] for name in names}

    def finished(self) -> list[Path]:
        """The shards' files; FileNotFoundError naming how many are not there, and the first of them."""
        missing = [path.name for path in self.files if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder}: {len(missing)} of {len(self.files)} shards are not finished, the first {missing[0]}; "
                f"run the same extraction again, it goes on where it stopped"
            )
        return self.files


@dataclass(frozen=True)
class ShardFormat:
    """One kind of thing that is made in shards.

    name: what it is called in messages ("bank"). start: the call that starts one, `{}` for the folder.
    plan, manifest: formats of the two JSON files. merged: names of files besides the shards.
    """

    name: str
    start: str
    plan: str
    manifest: str
    merged: tuple[str, ...] = ()

    def read_plan(self, folder: str | os.PathLike[str]) -> ShardPlan:
        """What the work in `folder` set out to do; FileNotFoundError or ValueError if there is no plan to read."""
        path = Path(folder) / PLAN
        what, fix = f"the plan of a {self.name}", f"start one with {self.start.format(repr(str(folder)))}"
        plan: _Plan = self._read(path, _Plan, self.plan, what, fix)
        bounds = plan["bounds"]
        if len(bounds) < 2 or bounds[0] != 0 or any(stop <= start for start, stop in pairwise(bounds)):
            reason = "its bounds are not rising numbers from 0"
            raise DamagedFile(f"{path} cannot be read as {what}: {reason}; {fix}, overwrite=True")
        return ShardPlan(Path(folder), plan["fingerprint"], tuple(bounds))

    def read_manifest(self, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest; FileNotFoundError if the work is not finished, ValueError if it is of another kind."""
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise FileNotFoundError(
                f"{folder}: no {MANIFEST}, so no finished {self.name}; run the same extraction again, it goes on "
                "where it stopped"
            )
        fix = f"extract the {self.name} again"
        manifest: Manifest = self._read(path, Manifest, self.manifest, f"the manifest of a {self.name}", fix)
        if self.merged and "bank" not in manifest:
            raise DamagedFile(f"{path} cannot be read as the manifest of a {self.name}: it names none; {fix}")
        return manifest

    def _read(self, path: Path, kind: Any, form: str, what: str, fix: str) -> Any:
        written = read_document(path, dict[str, Any], what=what, fix=fix)
        if written.get("format") != form:
            raise DamagedFile(f"{path} is not {what}, of format {form}; use another folder, or {fix}")
        return conform(written, kind, path, what, fix)

    def write_manifest(self, folder: Path, content: Mapping[str, Any]) -> None:
        """The last file of all."""
        write_document(folder / MANIFEST, {"format": self.manifest, **content})

    def member(self, folder: Path, name: str, digest: str | None = None) -> Path:
        """The file that a manifest names.

        Raises ValueError for a name that leads out of the folder, also through a link, and for a file with another
        digest than the manifest has.
        """
        path = folder / name
        if name in ("", "..") or Path(name).name != name or "\0" in name or path.resolve().parent != folder.resolve():
            raise DamagedFile(
                f"{folder / MANIFEST}: names {name!r}, which is no file of this folder: a finished {self.name} is all "
                f"in one folder, without links to others"
            )
        if digest is not None and recorded_digest(path) != digest:
            raise DamagedFile(f"{path} is not the file that {MANIFEST} was written for; extract the {self.name} again")
        return path

    def make(
        self,
        folder: str | os.PathLike[str],
        describe: Callable[[], tuple[dict[str, Any], int]],
        shard: Callable[[Path, range], object],
        finish: Callable[[], object],
        *,
        rank: int = 0,
        count: int = 1,
        barrier: Callable[[], None] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Do this process's part of the work in `folder`; every process calls it with its `rank` of `count`.

        describe: the fingerprint of the whole and N; asked on rank 0 only.
        shard: makes the file of some items; it is called again for a file that is there and must then be quick.
        finish: writes the manifest; called on rank 0 when all shards are there.
        barrier: waits for all processes; needed for more than one.
        A folder with a manifest of the same fingerprint is left as it is; shards of an earlier plan of the same
        fingerprint stay, also where `count` was another. While other processes are at it, rank 0 waits for them.
        Raises ValueError for a rank that is not below count, a missing barrier, or what is in `folder` for other
        settings; FileExistsError if `folder` is a file.
        """
        if not 0 <= rank < count:
            raise ValueError(f"rank is {rank} of count {count} processes; ranks go from 0 to count - 1")
        if count > 1 and barrier is None:
            raise ValueError(f"{count} processes need barrier=, a function that waits for all of them")
        wait = barrier or (lambda: None)
        folder = Path(folder)
        fingerprint, items = describe() if rank == 0 else ({}, 0)
        if rank == 0 and not overwrite and self._is_made(folder, fingerprint):
            wait()
            return
        with hold(folder) if rank == 0 else nullcontext():
            if rank == 0:
                self._prepare(folder, fingerprint, items, count, overwrite)
            wait()
            if (folder / MANIFEST).is_file():
                return
            plan = self.read_plan(folder)
            for i in range(rank, len(plan.files), count):
                shard(plan.files[i], range(plan.bounds[i], plan.bounds[i + 1]))
            wait()
            if rank == 0:
                finish()
            wait()

    def _is_made(self, folder: Path, fingerprint: dict[str, Any]) -> bool:
        """Whether the work is finished; ValueError if it is of other settings."""
        if not (folder / MANIFEST).is_file():
            return False
        refuse_stale(folder, self.read_manifest(folder)["fingerprint"], fingerprint)
        return True

    def _prepare(self, folder: Path, fingerprint: dict[str, Any], items: int, count: int, overwrite: bool) -> None:
        """Refuse or clear what is of other settings; write the plan if there is none."""
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; shards need a folder, name another one")
        if overwrite:
            self._clear(folder)
        elif self._is_made(folder, fingerprint):
            return
        if (folder / PLAN).is_file():
            plan = self.read_plan(folder)
            refuse_stale(folder, plan.fingerprint, fingerprint)
            if plan.bounds[-1] != items:
                raise DamagedFile(f"{folder / PLAN}: is for {plan.bounds[-1]} items, not {items}; pass overwrite=True")
            return
        shards = min(count, items)
        bounds = [items * i // shards for i in range(shards + 1)]
        write_document(folder / PLAN, {"format": self.plan, "fingerprint": fingerprint, "bounds": bounds})

    def _clear(self, folder: Path) -> None:
        """Delete what earlier work left, and nothing else; the manifest first, so that none is ever wrong."""
        merged = (folder / name for name in self.merged)
        for path in (folder / MANIFEST, folder / PLAN, *merged, *folder.glob(_SHARDS)):
            path.unlink(missing_ok=True)
        for parts in folder.glob(f"{_SHARDS}.partial"):
            if parts.is_symlink():
                parts.unlink()
                continue
            for path in parts.iterdir():
                path.unlink()
            parts.rmdir()

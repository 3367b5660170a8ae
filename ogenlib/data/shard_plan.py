"""Something large made by several processes: a plan says who makes which shard, a manifest says that all are there.

A folder holds `plan.json` (what is made, and which items each shard holds), `shard-00000-of-00004.safetensors`, and
at the end `manifest.json`, which is written last: without it the work is unfinished, and the same call goes on.

Notation: `N` items.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogenlib.data.extract import refuse_stale
from ogenlib.utils.documents import write_json

PLAN, MANIFEST = "plan.json", "manifest.json"
_SHARDS = "shard-*-of-*.safetensors"


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
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such plan; start one with {self.start.format(repr(str(folder)))}")
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan.get("format") != self.plan:
            raise ValueError(f"{path}: is of format {plan.get('format')}, not {self.plan}; use another folder")
        return ShardPlan(Path(folder), plan["fingerprint"], tuple(plan["bounds"]))

    def read_manifest(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """The manifest; FileNotFoundError if the work is not finished, ValueError if it is of another kind."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder}: no {MANIFEST}, so no finished {self.name}; run the same extraction again, it goes on "
                "where it stopped"
            )
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != self.manifest:
            raise ValueError(f"{path}: is no manifest of format {self.manifest}; extract the {self.name} again")
        return manifest

    def write_manifest(self, folder: Path, content: Mapping[str, Any]) -> None:
        """The last file of all."""
        write_json(folder / MANIFEST, {"format": self.manifest, **content})

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
        fingerprint stay, also where `count` was another.
        Raises ValueError for a rank that is not below count, a missing barrier, or what is in `folder` for other
        settings; FileExistsError if `folder` is a file.
        """
        if not 0 <= rank < count:
            raise ValueError(f"rank is {rank} of count {count} processes; ranks go from 0 to count - 1")
        if count > 1 and barrier is None:
            raise ValueError(f"{count} processes need barrier=, a function that waits for all of them")
        wait = barrier or (lambda: None)
        folder = Path(folder)
        if rank == 0:
            fingerprint, items = describe()
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

    def _prepare(self, folder: Path, fingerprint: dict[str, Any], items: int, count: int, overwrite: bool) -> None:
        """Refuse or clear what is of other settings; write the plan if there is none."""
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; shards need a folder, name another one")
        if overwrite:
            self._clear(folder)
        elif (folder / MANIFEST).is_file():
            refuse_stale(folder, self.read_manifest(folder)["fingerprint"], fingerprint)
            return
        if (folder / PLAN).is_file():
            refuse_stale(folder, self.read_plan(folder).fingerprint, fingerprint)
            return
        shards = min(count, items)
        bounds = [items * i // shards for i in range(shards + 1)]
        write_json(folder / PLAN, {"format": self.plan, "fingerprint": fingerprint, "bounds": bounds})

    def _clear(self, folder: Path) -> None:
        """Delete what earlier work left, and nothing else; the manifest first, so that none is ever wrong."""
        merged = (folder / name for name in self.merged)
        for path in (folder / MANIFEST, folder / PLAN, *merged, *folder.glob(_SHARDS)):
            path.unlink(missing_ok=True)
        for parts in folder.glob(f"{_SHARDS}.partial"):
            for path in parts.iterdir():
                path.unlink()
            parts.rmdir()

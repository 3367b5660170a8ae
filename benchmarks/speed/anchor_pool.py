"""A pool of a million image-text pairs, indexed and searched: seconds, memory, and recall of the index.

    python -m benchmarks.speed.anchor_pool                     # writes benchmarks/results/anchor-pool.json
    python -m benchmarks.speed.anchor_pool --rows 20000 --queries 50 --out /tmp/pool.json

Pairs are synthetic: points of a mixture in few dimensions, mapped into D and made unit rows, kept in half precision in
shards as `extract_pool` leaves them, each written by a process of its own and then joined; the texts of pairs are
their images with noise. Queries are further points of the same mixture. Recall on features of real images will differ;
seconds and memory depend on sizes alone. Where faiss is installed (the extra `faiss`), its indexes are compared with
exact search by recall@k.

Memory is private (RssAnon): rows of the pool are mapped from files, and what the system keeps of them in memory it
gives back when others want it. Linux only.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.options import add_many, add_number, parser_of
from benchmarks.common.origin import origin
from benchmarks.common.resident import status
from ogenlib.anchors import CandidatePool, FaissIndex
from ogenlib.anchors.pool import BLOCK, POOL_SHARDS, PoolPart
from ogenlib.anchors.strings import Strings
from ogenlib.utils.documents import write_json

LATENT, PER_CENTRE, SPREAD, NOISE = 64, 50, 0.7, 0.05  # a neighbour's cosine is about 0.7, a stranger's 0


class Mixture:
    """Points around random centres in `LATENT` dimensions, as unit rows `(n, dim)`."""

    def __init__(self, rows: int, dim: int, seed: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        self.centres = F.normalize(self.noise(max(1, rows // PER_CENTRE), LATENT), dim=-1)
        self.map = torch.linalg.qr(self.noise(dim, LATENT)).Q.T.contiguous()

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draws)

    def points(self, count: int) -> Tensor:
        chosen = self.centres[torch.randint(len(self.centres), (count,), generator=self.draws)]
        latent = chosen + SPREAD * self.noise(count, LATENT) / LATENT**0.5
        return self.near(latent @ self.map)

    def near(self, points: Tensor) -> Tensor:
        return F.normalize(points + NOISE * self.noise(*points.shape) / points.shape[1] ** 0.5, dim=-1)


@contextmanager
def private_peak(measured: dict[str, Any]) -> Iterator[None]:
    """Seconds of the block, and by how many MiB private memory rose in it, looked at every 20 ms."""
    before = peak = status("RssAnon")
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, status("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        measured["seconds"] = time.perf_counter() - began
        done.set()
        thread.join()
        measured["extra_mib"] = max(peak, status("RssAnon")) - before


def write_shards(folder: Path, rows: int, dim: int, seed: int, rank: int, count: int, wait: Any, peaks: Any) -> None:
    """What one of `count` processes does for a pool, as extraction does it: its shard, and on rank 0 the manifest.

    peaks: a queue that gets the highest resident memory of this process, MiB.
    """
    torch.set_num_threads(1)
    mixture = Mixture(rows, dim, seed)

    def shard(path: Path, part: range) -> None:
        mixture.draws.manual_seed(seed + 2 + part.start)  # the same centres, points of its own
        images, texts = (torch.empty(len(part), dim, dtype=torch.float16) for _ in range(2))
        for start in range(0, len(part), BLOCK):
            block = mixture.points(min(BLOCK, len(part) - start))
            images[start : start + len(block)] = block
            texts[start : start + len(block)] = mixture.near(block)
        keys = Strings.of(f"{i:09d}" for i in part)
        captions = Strings.of(f"a synthetic picture, number {i}, of nothing at all" for i in part)
        PoolPart(images, texts, keys, captions).save(path, {})

    def finish() -> None:
        plan = POOL_SHARDS.read_plan(folder)
        sizes = [stop - start for start, stop in zip(plan.bounds[:-1], plan.bounds[1:], strict=True)]
        parts = [{"file": p.name, "rows": n} for p, n in zip(plan.finished(), sizes, strict=True)]
        POOL_SHARDS.write_manifest(folder, {"fingerprint": plan.fingerprint, "rows": rows, "shards": parts})

    POOL_SHARDS.make(folder, lambda: ({"synthetic": seed}, rows), shard, finish, rank=rank, count=count, barrier=wait)
    peaks.put(status("VmHWM"))


def write_pool(folder: Path, rows: int, dim: int, processes: int, seed: int) -> dict[str, Any]:
    """Write a pool in shards, one a process, and join them; seconds, and memory of the largest process."""
    context = multiprocessing.get_context("spawn")
    barrier, peaks = context.Barrier(processes), context.Queue()
    began = time.perf_counter()
    shared = (folder, rows, dim, seed)
    workers = [
        context.Process(target=write_shards, args=(*shared, rank, processes, barrier.wait, peaks))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a process that writes shards ended with {worker.exitcode}")
    return {"seconds": time.perf_counter() - began, "largest_process_mib": max(peaks.get() for _ in workers)}


def recall(neighbours: Tensor, exact: Tensor) -> float:
    """Percent of each query's exact neighbours that were found, on average."""
    return 100 * float((neighbours[:, :, None] == exact[:, None]).any(1).float().mean())


def searched(search: Callable[[], tuple[Tensor, Tensor]], queries: int) -> tuple[dict[str, Any], Tensor]:
    """Seconds, milliseconds a query and memory of a search, and the neighbours it found."""
    measured: dict[str, Any] = {}
    with private_peak(measured):
        _, neighbours = search()
    return {**measured, "ms_a_query": 1000 * measured["seconds"] / queries}, neighbours


def main() -> None:
    parser = parser_of(__doc__, "anchor-pool.json")
    add_number(parser, "--rows", 1_000_000, "pairs")
    add_number(parser, "--dim", 512, "width of the features")
    add_number(parser, "--queries", 500, "images that ask")
    add_number(parser, "--k", 16, "neighbours of each")
    add_number(parser, "--processes", 4, "that write a shard each")
    parser.add_argument("--lists", type=int, default=None, help="inverted lists (default: what the library takes)")
    add_many(parser, "--probes", (1, 8, 32, 128), "lists looked into (32 is the library's)")
    add_number(parser, "--seed", 0, "of the pairs")
    parser.add_argument("--work", type=Path, default=None, help="folder for the pool (default: a temporary one)")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)

    with tempfile.TemporaryDirectory(dir=args.work) as place:
        folder = Path(place) / "pool"
        written = write_pool(folder, args.rows, args.dim, args.processes, args.seed)
        size = sum(file.stat().st_size for file in folder.iterdir())
        note({"case": "write", **written, "disk_mib": size / 2**20})
        measured: dict[str, Any] = {}
        with private_peak(measured):
            pool = CandidatePool.load(folder)
        note({"case": "open", **measured})
        mixture = Mixture(args.rows, args.dim, args.seed)
        mixture.draws.manual_seed(args.seed + 1)  # the same centres, further points
        queries = mixture.points(args.queries)
        measured, exact = searched(partial(pool.search, queries, args.k), args.queries)
        note({"case": "exact", **measured, "recall": 100.0})
        if importlib.util.find_spec("faiss") is None:
            print("faiss is not installed: exact search only", file=sys.stderr)
        else:
            for kind in ("ivf", "ivf-pq"):
                measured = {}
                with private_peak(measured):
                    index = FaissIndex.build(pool, kind, lists=args.lists, seed=args.seed)
                index.save(Path(place) / kind)
                size = (Path(place) / kind).stat().st_size
                note({"case": f"build {kind}", **measured, "lists": index.index.nlist, "index_mib": size / 2**20})
                for probe in args.probes:
                    again = FaissIndex(index.index, pool, kind, probe=probe, refine=index.refine)
                    measured, neighbours = searched(partial(again.search, queries, args.k), args.queries)
                    note({"case": f"search {kind}", "probe": probe, **measured, "recall": recall(neighbours, exact)})
                del index, again
    card = origin("speed.anchor_pool")
    faiss_version = {"faiss": version("faiss-cpu")} if importlib.util.find_spec("faiss") is not None else {}
    write_json(
        args.out,
        {
            "schema": "ogenlib.anchor-pool/1",
            "protocol": {
                "data": {
                    "synthetic": True,
                    "latent": LATENT,
                    "rows_a_centre": PER_CENTRE,
                    "spread": SPREAD,
                    "noise": NOISE,
                    "seed": args.seed,
                },
                "rows": args.rows,
                "dim": args.dim,
                "dtype": "float16",
                "queries": args.queries,
                "k": args.k,
                "processes": args.processes,
                **card,
                "versions": {**card["versions"], **faiss_version},
            },
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()

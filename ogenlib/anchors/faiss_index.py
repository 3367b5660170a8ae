"""An approximate index of a large pool, by faiss (the extra ``faiss``).

Up to ten million features: inverted lists of half-precision copies, so neighbours have exact cosines and only lists
that are not probed are missed. Above: inverted lists of product-quantised codes, whose best are ranked again by their
features in the pool. docs/anchors.md has the arithmetic.

Notation: `N` features, `D` embedding, `Q` queries, `k` neighbours, `L` inverted lists.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.anchors.faiss_file import read_index, write_index
from ogenlib.anchors.pool import BLOCK, CandidatePool

KINDS = ("auto", "flat", "ivf", "ivf-pq")
PQ_ABOVE = 10_000_000  # features whose half-precision copies would take 10 GB at D = 512
FLAT_BELOW = 50_000  # where lists save less than they cost
TRAIN_PER_LIST = 40  # faiss warns below 39 points a centroid
GRAPH_FROM = (
    16_384  # lists from which that of each feature is looked up by a graph over them, not by comparing with all
)
PQ_ROUNDS = 10  # of k-means for the codes, as many as faiss takes for the lists
CODE_BYTES = 64  # at D = 512, a byte for every 8 dimensions
GATHER = 64  # queries whose candidates are read from the pool together


def choose_kind(count: int) -> str:
    """The kind that "auto" takes for `count` features."""
    if count > PQ_ABOVE:
        return "ivf-pq"
    return "flat" if count < FLAT_BELOW else "ivf"


def choose_lists(count: int) -> int:
    """`L`: the power of two nearest to 4 sqrt(N), as faiss's guidelines have it, and no more than can be trained."""
    nearest = 2 ** round(math.log2(4 * math.sqrt(max(count, 1))))
    return max(1, min(nearest, count // TRAIN_PER_LIST))


class FaissIndex:
    """An index of one side of a pool. Made by `build`; `search` is that of the pool, approximately.

    Attributes:
        kind: ``flat``, ``ivf`` or ``ivf-pq``.
        probe: lists a query looks into.
        refine: candidates for each of the k that are ranked again by the pool's own features; 1 for none.
    """

    def __init__(
        self, index: Any, pool: CandidatePool, kind: str, side: str = "images", *, probe: int = 32, refine: int = 1
    ) -> None:
        if index.ntotal != len(pool) or index.d != pool.embed_dim:
            raise ValueError(
                f"the index holds {index.ntotal} rows of {index.d} dimensions, the pool {len(pool)} of "
                f"{pool.embed_dim}; build it again with FaissIndex.build(pool)"
            )
        if probe < 1 or refine < 1:
            raise ValueError(f"probe={probe}, refine={refine}: both must be 1 or more")
        self.index, self.pool, self.kind, self.side = index, pool, kind, side
        self.probe, self.refine = probe, refine

    @classmethod
    def build(
        cls,
        pool: CandidatePool,
        kind: str = "auto",
        *,
        side: str = "images",
        lists: int | None = None,
        code_bytes: int = CODE_BYTES,
        probe: int = 32,
        refine: int | None = None,
        seed: int = 0,
        block: int = BLOCK,
    ) -> FaissIndex:
        """Train and fill an index, reading the pool block by block.

        Args:
            kind: ``auto`` takes `choose_kind(N)`.
            lists: `L`; None for `choose_lists(N)`.
            code_bytes: of a product-quantised feature; divides D.
            refine: None for 1, or 4 where codes are quantised.
            seed: of the features that centroids are trained on.

        Raises:
            ImportError: faiss is not installed.
            ValueError: an unknown kind, or `lists` or `code_bytes` that do not fit.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
        faiss = _faiss()
        kind = choose_kind(len(pool)) if kind == "auto" else kind
        count, dim = len(pool), pool.embed_dim
        lists = choose_lists(count) if lists is None else lists
        if not 1 <= lists <= count:
            raise ValueError(f"lists={lists}: must be 1 to {count}, the number of rows")
        if kind == "ivf-pq" and (code_bytes < 1 or dim % code_bytes):
            raise ValueError(f"code_bytes={code_bytes}: must divide the {dim} dimensions")
        coarse = f"IVF{lists}_HNSW32" if lists >= GRAPH_FROM else f"IVF{lists}"
        described = {"flat": "Flat", "ivf": f"{coarse},SQfp16", "ivf-pq": f"{coarse},PQ{code_bytes}np"}[kind]
        # "np": without polysemous training, minutes of annealing for a search that is not used here
        index = faiss.index_factory(dim, described, faiss.METRIC_INNER_PRODUCT)
        if kind == "ivf-pq":  # faiss's own 25 rounds over all features cost several times the lists
            index.pq.cp.niter, index.pq.cp.max_points_per_centroid = PQ_ROUNDS, TRAIN_PER_LIST
        if kind != "flat":
            index.train(_sample(pool, side, max(lists * TRAIN_PER_LIST, 256 * TRAIN_PER_LIST), seed).numpy())
        for _, features in pool.blocks(side, block):
            index.add(features.float().contiguous().numpy())
        refine = (4 if kind == "ivf-pq" else 1) if refine is None else refine
        return cls(index, pool, kind, side, probe=probe, refine=refine)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Cosines `(Q, k)` and indices `(Q, k)`, best first; where the probed lists hold fewer, -inf and -1.

        Raises:
            ValueError: `k` below 1, or queries of another width.
        """
        if k < 1 or queries.ndim != 2 or queries.shape[1] != self.pool.embed_dim:
            raise ValueError(f"k={k}, queries {tuple(queries.shape)}: expected k >= 1 and (Q, {self.pool.embed_dim})")
        unit = F.normalize(queries.detach().cpu().float(), dim=-1).contiguous()
        best = min(k, len(self.pool))
        candidates = min(best * self.refine, len(self.pool))
        scores, indices = self._indexed(unit, candidates)
        if self.refine > 1:
            scores, indices = self._ranked_again(unit, indices, best)
        return scores.masked_fill(indices < 0, -torch.inf), indices

    def _indexed(self, unit: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self.kind != "flat":
            self.index.nprobe = min(self.probe, self.index.nlist)
        scores, indices = self.index.search(unit.numpy(), k)
        return torch.from_numpy(scores), torch.from_numpy(indices)

    def _ranked_again(self, unit: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best candidates of each query by their features in the pool."""
        scores, chosen = [], []
        for query, candidates in zip(unit.split(GATHER), indices.split(GATHER), strict=True):
            # each feature is read once and in the order of the files
            distinct, place = candidates.clamp_min(0).unique(return_inverse=True)
            features = F.normalize(self.pool.features(distinct, self.side), dim=-1)
            exact = (query @ features.T).gather(1, place).masked_fill(candidates < 0, -torch.inf)
            best, order = exact.sort(dim=1, descending=True, stable=True)
            scores.append(best[:, :k])
            chosen.append(candidates.gather(1, order)[:, :k])
        return torch.cat(scores), torch.cat(chosen)

    @property
    def bytes(self) -> int:
        """Size of the index as faiss writes it."""
        return int(_faiss().serialize_index(self.index).nbytes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index in faiss's own format and a digest, whole or not at all; the pool is not in it."""
        write_index(_faiss(), self.index, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], pool: CandidatePool, side: str = "images", **options: Any
    ) -> FaissIndex:
        """An index that `save` wrote, of the same pool.

        options: `probe` and `refine`.
        Raises FileNotFoundError; ValueError for a file that is no index or damaged, or one of another pool.
        """
        index, kind = read_index(_faiss(), path)
        return cls(index, pool, kind, side, **{"refine": 4 if kind == "ivf-pq" else 1, **options})


def _sample(pool: CandidatePool, side: str, count: int, seed: int) -> Tensor:
    """`(n, D)`: at most `count` features drawn without repeats."""
    if count >= len(pool):
        indices = torch.arange(len(pool))
    else:
        indices = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return pool.features(indices, side).contiguous()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "FaissIndex needs faiss: pip install 'ogenlib[faiss]' (pool.search is exact and needs nothing)"
        ) from error
    return faiss

"""The k most similar vectors, exactly, in bounded memory.

Notation: `Q` queries, `N` vectors, `D` embedding, `k` neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 1024  # with 65,536 vectors a block, 256 MiB of similarities


@torch.no_grad()
def exact_top_k(
    queries: Tensor, blocks: Iterable[tuple[int, Tensor]], k: int, query_block: int = QUERY_BLOCK
) -> tuple[Tensor, Tensor]:
    """Cosines `(Q, k)`, fp32, and indices `(Q, k)`, int64, of the k vectors nearest to each query, best first.

    Args:
        queries: `(Q, D)`, of any length; products are computed on their device.
        blocks: (index of the first, unit vectors `(n, D)` of any float type), in rising order; each is used once,
            so they may be read from a file. Memory grows with one block, not with `N`.
        query_block: queries that meet a block together; it changes results by rounding only.

    Fewer than k columns come back where there are fewer vectors. Those of equal cosine come in their order; which of
    them is left out where they do not all fit is not defined.

    Raises:
        ValueError: `k` or `query_block` below 1, queries that are no `(Q, D)` of finite numbers, or vectors of another
            width.
    """
    if k < 1 or query_block < 1:
        raise ValueError(f"k={k}, query_block={query_block}: both must be 1 or more")
    if queries.ndim != 2 or not queries.isfinite().all():
        raise ValueError(f"queries are {tuple(queries.shape)}, expected (Q, D) of finite numbers")
    with torch.autocast(queries.device.type, enabled=False):
        parts = F.normalize(queries.float(), dim=-1).split(query_block)
        scores = [part.new_empty(len(part), 0) for part in parts]
        indices = [torch.empty(len(part), 0, dtype=torch.long, device=part.device) for part in parts]
        for start, block in blocks:
            if block.shape[1:] != queries.shape[1:]:
                raise ValueError(f"queries have {queries.shape[1]} dimensions, the rows {tuple(block.shape[1:])}")
            wide = block.to(queries.device).float()
            for i, part in enumerate(parts):
                score, index = (part @ wide.T).topk(min(k, len(wide)), dim=1)
                scores[i], indices[i] = _merged(scores[i], indices[i], score, index + start, k)
    return torch.cat(scores), torch.cat(indices)


def _merged(old: Tensor, old_indices: Tensor, new: Tensor, new_indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of both, equal ones in the order of their indices."""
    score, index = torch.cat([old, new], dim=1), torch.cat([old_indices, new_indices], dim=1)
    by_index = index.argsort(dim=1)
    score, index = score.gather(1, by_index), index.gather(1, by_index)
    score, order = score.sort(dim=1, descending=True, stable=True)
    return score[:, :k], index.gather(1, order)[:, :k]

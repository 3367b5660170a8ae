"""What a learned context looks like in words: the vocabulary's token embeddings nearest to each context token.

CoOp's authors print such words and say how little they mean (Zhou et al. 2022, section 4.2): tokens far from every
word can be good contexts. The distances tell how near "nearest" is.

Notation: `C` classes, `M` context tokens, `V` vocabulary, `W` text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.hosts import Host

METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class Word:
    """A vocabulary token near a context token.

    Attributes:
        text: as the tokenizer writes it; a trailing ``-`` marks the beginning of a longer word.
        token: its id.
        euclidean: distance of the two embeddings.
        cosine: one minus their cosine.
    """

    text: str
    token: int
    euclidean: float
    cosine: float


@dataclass(frozen=True)
class ContextToken:
    """One learned token and its nearest words, nearest first.

    Attributes:
        name: the class it belongs to; None where all classes share the context.
        index: its place in the context, from 0.
        norm: length of the learned embedding.
    """

    name: str | None
    index: int
    norm: float
    words: tuple[Word, ...]


@torch.no_grad()
def nearest_words(host: Host, k: int = 5, *, metric: str = "euclidean") -> list[ContextToken]:
    """The `k` vocabulary tokens nearest to every token of a learned context, special tokens left out.

    Args:
        host: one with a `context` parameter, `(M, W)` or one a class `(C, M, W)`; OGEN around it is looked through.
        metric: which distance orders the words, ``euclidean`` or ``cosine``; both are reported.

    Raises:
        ValueError: the host has no learned context of text tokens, `k` is out of range, or an unknown metric.
    """
    inner = host.inner
    context = getattr(inner, "context", None)
    if not isinstance(context, Tensor) or context.ndim not in (2, 3):
        raise ValueError(
            f"{inner.info.name} has no learned context of text tokens; nearest_words takes prompt learners such as coop"
        )
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}: must be one of {', '.join(METRICS)}")
    tower = inner.clip.text
    ids = [i for i in range(tower.vocabulary_size) if not tower.tokens.is_special(i)]
    if not 1 <= k <= len(ids):
        raise ValueError(f"k={k}: must be from 1 to {len(ids)}, the words of the vocabulary")
    table = tower.embed(torch.tensor(ids, device=tower.device)[None])[0].float()
    if table.shape[1] != context.shape[-1]:
        raise ValueError(f"{inner.info.name}'s context is {context.shape[-1]} wide, the vocabulary {table.shape[1]}")
    names: tuple[str | None, ...] = (None,) if context.ndim == 2 else inner.names
    contexts = context.detach().float().reshape(len(names), *context.shape[-2:])
    return [
        token
        for name, tokens in zip(names, contexts, strict=True)
        for token in _nearest(tokens, table, ids, name, k, metric, tower.tokens.word)
    ]


def _nearest(
    tokens: Tensor, table: Tensor, ids: Sequence[int], name: str | None, k: int, metric: str, word: Callable[[int], str]
) -> Iterator[ContextToken]:
    """Context tokens `(M, W)` against the table `(V, W)` of the tokens `ids`."""
    # By differences: the usual expansion into products loses the small distances to rounding.
    euclidean = torch.cdist(tokens, table, compute_mode="donot_use_mm_for_euclid_dist")
    cosine = (1 - F.normalize(tokens, dim=-1) @ F.normalize(table, dim=-1).T).clamp_min(0)
    order = (euclidean if metric == "euclidean" else cosine).topk(k, dim=-1, largest=False).indices.tolist()
    for index, columns in enumerate(order):
        words = tuple(Word(word(ids[c]), ids[c], float(euclidean[index, c]), float(cosine[index, c])) for c in columns)
        yield ContextToken(name, index, float(tokens[index].norm()), words)

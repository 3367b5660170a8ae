"""Shared-prefix text encoding: what all classes have in common is computed once.

Notation: `C` classes, `R` images, `P` prefix tokens, `S` suffix tokens, `T` real suffix tokens in all,
`W` text width, `D` embedding width, `H` heads, `d = W / H`.

In a causal tower the hidden states of "start token + context" do not depend on the class name after them.
They run through the tower once; only their keys and values meet the class suffixes. Suffix tokens are kept
packed, without padding, everywhere but inside attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ogenlib.towers.blocks import causal_step, finish, heads, qkv, replace_deep, run_causal, split_heads  # fmt: skip
from ogenlib.towers.native import NativeTextTower
from ogenlib.towers.text import TextTower


class KeysValues(NamedTuple):
    """What a block's suffix attends to in the prefix; both `(R, H, P, d)`."""

    k: Tensor
    v: Tensor


def encode_shared_prefix(
    tower: TextTower,
    prefix: Tensor,
    suffix: Tensor,
    ids: Tensor,
    *,
    deep: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Un-normalised text features of every class behind one prefix.

    Args:
        prefix: embeddings `(P, W)`, or `(R, P, W)` for one prefix per image; no positions.
        suffix: embeddings `(C, S, W)` of what follows, no positions; cut to the longest class inside.
        ids: `(C, P + S)`, read only to find where each text ends.
        deep: as in `TextTower.encode`; replaces hidden states inside the prefix.
        chunk: classes encoded at a time. With gradients, the activations of a chunk are recomputed in
            backward, so memory is that of one chunk; the result is the same. None: all at once.

    Returns:
        `(C, D)`, or `(R, C, D)` for a prefix per image.

    Raises:
        ValueError: the tower cannot share a prefix, or shapes disagree.
    """
    native = _check(tower, prefix, suffix, ids, deep, chunk)
    prefixes = prefix if prefix.ndim == 3 else prefix[None]
    lengths = native.lengths(ids) - prefixes.shape[1]
    if len(ids) and int(lengths.min()) < 1:
        raise ValueError(f"a text ends inside the prefix of {prefixes.shape[1]} tokens: ids and prefix disagree")
    if chunk is None and len(ids):
        features = _encode_together(native, prefixes, suffix, lengths, deep)
        return features if prefix.ndim == 3 else features[0]
    keys = prefix_keys(native, prefixes, deep)
    pieces = []
    for start in range(0, len(ids), chunk or max(len(ids), 1)):
        end = start + (chunk or len(ids))
        args = (native, keys, suffix[start:end], lengths[start:end])
        if chunk is not None and torch.is_grad_enabled():
            # Rng state matters only where dropout could be active.
            redo = native.model.training
            pieces.append(checkpoint(_encode_suffixes, *args, use_reentrant=False, preserve_rng_state=redo))
        else:
            pieces.append(_encode_suffixes(*args))
    if not pieces:
        features = prefix.new_zeros(len(prefixes), 0, native.embed_dim)
    else:
        features = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
    return features if prefix.ndim == 3 else features[0]


def prefix_keys(tower: NativeTextTower, prefix: Tensor, deep: Tensor | None = None) -> list[KeysValues]:
    """Keys and values of prefixes `(R, P, W)` in every block."""
    x = prefix.to(tower.dtype) + tower.positions(0, prefix.shape[1])
    keys_values = []
    for i, block in enumerate(tower.blocks):
        x = replace_deep(x, deep, i, tower.n_prefix)
        q, k, v = run_causal(block, x)
        keys_values.append(KeysValues(k, v))
        if i + 1 < len(tower.blocks):  # nothing reads the prefix after the last block
            x = causal_step(block, x, q, k, v)
    return keys_values


class _Packing(NamedTuple):
    """Where the `T` packed tokens stand in the padded `(N * S)` grid; None if nothing is padded."""

    n: int
    s: int
    places: Tensor | None

    def pad(self, x: Tensor) -> Tensor:
        """`(T, ...)` -> `(N, S, ...)`. Padding stands after the words, where no word looks."""
        if self.places is not None:
            x = x.new_zeros(self.n * self.s, *x.shape[1:]).index_copy_(0, self.places, x)
        return x.unflatten(0, (self.n, self.s))

    def pack(self, x: Tensor) -> Tensor:
        """`(N, S, ...)` -> `(T, ...)`."""
        x = x.flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)


def _encode_suffixes(tower: NativeTextTower, keys: Sequence[KeysValues], suffix: Tensor, lengths: Tensor) -> Tensor:
    """Features `(R, C, D)` of suffixes `(C, S, W)` with `lengths` `(C,)` behind `R` prefixes."""
    x, suffixes = _start(tower, suffix, lengths, *keys[0].k.shape[::2])
    for block, prefix in zip(tower.blocks[:-1], keys[:-1], strict=True):
        x = finish(block, x, suffixes.attend(block, qkv(block, x), prefix))
    last = tower.blocks[-1]
    hidden = last.ln_1(x)  # type: ignore[operator]
    return suffixes.features(tower, x, hidden, _keys_values(last, hidden), keys[-1])


def _encode_together(
    tower: NativeTextTower, prefix: Tensor, suffix: Tensor, lengths: Tensor, deep: Tensor | None
) -> Tensor:
    """The same, prefix and suffixes in one matrix product: few classes wait for weights, not for arithmetic."""
    n_images, n_prefix, width = prefix.shape
    x, suffixes = _start(tower, suffix, lengths, n_images, n_prefix)
    cut = [n_images * n_prefix, len(x)]
    p = prefix.to(tower.dtype) + tower.positions(0, n_prefix)
    for i, block in enumerate(tower.blocks):
        p = replace_deep(p, deep, i, tower.n_prefix)
        both = torch.cat([p.flatten(0, 1), x])
        if i + 1 == len(tower.blocks):
            break
        of_prefix, of_suffix = qkv(block, both).split(cut)
        q, k, v = (split_heads(part, heads(block)) for part in of_prefix.unflatten(0, p.shape[:2]).chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(-1, width)
        attended = torch.cat([seen, suffixes.attend(block, of_suffix, KeysValues(k, v))])
        p, x = finish(block, both, attended).split(cut)
        p = p.unflatten(0, (n_images, n_prefix))
    last = tower.blocks[-1]
    hidden = last.ln_1(both)  # type: ignore[operator]
    of_prefix, of_suffix = _keys_values(last, hidden).split(cut)
    k, v = (split_heads(part, heads(last)) for part in of_prefix.unflatten(0, p.shape[:2]).chunk(2, dim=-1))
    return suffixes.features(tower, x, hidden[cut[0] :], of_suffix, KeysValues(k, v))


class _Suffixes(NamedTuple):
    """What attention of packed suffixes needs: `sees` `(S, P + S)`, `pooled` `(R * C,)` places of the last tokens."""

    packing: _Packing
    pooled: Tensor
    sees: Tensor
    lengths: Tensor
    n_images: int

    def attend(self, block: Any, x: Tensor, prefix: KeysValues) -> Tensor:
        """Attended values `(T, W)` of queries, keys and values `(T, 3 W)`."""
        padded = self.packing.pad(x).unflatten(-1, (3, heads(block), -1))
        q, k, v = (part.transpose(1, 2) for part in padded.unbind(2))
        attended = F.scaled_dot_product_attention(q, *_behind(prefix, k, v, len(self.lengths)), attn_mask=self.sees)
        return self.packing.pack(attended.transpose(1, 2).flatten(2))

    def features(self, tower: NativeTextTower, x: Tensor, hidden: Tensor, kv: Tensor, prefix: KeysValues) -> Tensor:
        """The last block: only the pooled tokens are read after it, so only they ask, project and pass the MLP."""
        last: Any = tower.blocks[-1]
        n_heads, width = heads(last), x.shape[-1]
        bias = last.attn.in_proj_bias
        q = F.linear(hidden[self.pooled], last.attn.in_proj_weight[:width], None if bias is None else bias[:width])
        padded = self.packing.pad(kv).unflatten(-1, (2, n_heads, -1))
        k, v = (part.transpose(1, 2) for part in padded.unbind(2))
        sees = self.sees[self.lengths - 1].repeat(self.n_images, 1)[:, None, None]
        keys = _behind(prefix, k, v, len(self.lengths))
        attended = F.scaled_dot_product_attention(q.unflatten(-1, (n_heads, 1, -1)), *keys, attn_mask=sees)
        x = finish(last, x[self.pooled], attended.flatten(1))
        return tower.project(x).unflatten(0, (self.n_images, len(self.lengths)))


def _keys_values(block: Any, hidden: Tensor) -> Tensor:
    """Keys and values `(..., 2 W)` of normalised hidden states `(..., W)`."""
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    width = weight.shape[1]
    return F.linear(hidden, weight[width:], None if bias is None else bias[width:])


def _start(
    tower: NativeTextTower, suffix: Tensor, lengths: Tensor, n_images: int, n_prefix: int
) -> tuple[Tensor, _Suffixes]:
    """Packed embeddings `(T, W)` with positions, and what their attention needs."""
    longest = int(lengths.max())
    x = suffix[:, :longest].to(tower.dtype) + tower.positions(n_prefix, n_prefix + longest)
    x, packing, pooled = _pack(x, lengths, n_images)
    # A suffix token sees the whole prefix and the suffix up to itself.
    sees = torch.ones(longest, n_prefix + longest, dtype=torch.bool, device=x.device).tril(n_prefix)
    return x, _Suffixes(packing, pooled, sees, lengths, n_images)


def _pack(x: Tensor, lengths: Tensor, n_images: int) -> tuple[Tensor, _Packing, Tensor]:
    """Packed tokens `(T, W)` of `(C, S, W)` repeated for every image, their places, and the pooled ones."""
    n_classes, longest = x.shape[:2]
    real = torch.arange(longest, device=x.device) < lengths[:, None]
    index = real.flatten().nonzero().squeeze(1)
    per_image = len(index)
    x = x.flatten(0, 1)[index].repeat(n_images, 1)
    row = torch.arange(n_images, device=x.device)[:, None]
    pooled = (row * per_image + lengths.cumsum(0) - 1).flatten()
    places = None
    if per_image < n_classes * longest:
        places = (row * (n_classes * longest) + index).flatten()
    return x, _Packing(n_images * n_classes, longest, places), pooled


def _behind(prefix: KeysValues, k: Tensor, v: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Keys and values `(R * C, H, P + S, d)`: each image's prefix in front of its classes' own."""

    def join(shared: Tensor, own: Tensor) -> Tensor:
        n_images = len(shared)
        spread = shared[:, None].expand(n_images, n_classes, *shared.shape[1:])
        return torch.cat([spread, own.unflatten(0, (n_images, n_classes))], dim=3).flatten(0, 1)

    return join(prefix.k, k), join(prefix.v, v)


def _check(
    tower: TextTower, prefix: Tensor, suffix: Tensor, ids: Tensor, deep: Tensor | None, chunk: int | None
) -> NativeTextTower:
    if not tower.can_share_prefix:
        raise ValueError(
            "this text tower cannot share a prefix (it is not causal, appends a class token or has blocks with "
            "scale options): use tower.encode, or encode_prompts(..., path='plain')"
        )
    if prefix.ndim not in (2, 3) or prefix.shape[-1] != tower.width:
        raise ValueError(f"prefix is {tuple(prefix.shape)}, expected (P, {tower.width}) or (R, P, {tower.width})")
    n_prefix = prefix.shape[-2]
    expected = (len(ids), ids.shape[1] - n_prefix, tower.width)
    if tuple(suffix.shape) != expected:
        raise ValueError(
            f"suffix is {tuple(suffix.shape)}, ids {tuple(ids.shape)} and a prefix of {n_prefix} "
            f"tokens make it {expected}"
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected None or at least 1 class")
    tower.check_length(ids.shape[1])
    tower.check_deep(deep, n_prefix)
    return cast(NativeTextTower, tower)

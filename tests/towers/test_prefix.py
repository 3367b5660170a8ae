"""Shared-prefix encoding agrees with the plain tower in value and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.towers import TextTower, encode_shared_prefix, prefix

from .conftest import CAUSAL, Tiny

Build = Callable[[str], Tiny]
NAMES = ["dog", "big red fox .", "cat", "an icon of a blue house with snow"]


def problem(tower: TextTower, m: int, rows: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Context `(M, W)` or `(R, M, W)`, start and suffix embeddings folded in later, ids `(C, L)`."""
    ids = tower.trim(tower.tokenize([" ".join(["x"] * m + [name]) for name in NAMES]))
    shape = (m, tower.width) if rows is None else (rows, m, tower.width)
    context = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return context, tower.embed(ids), ids


def plain(tower: TextTower, context: Tensor, embeds: Tensor, ids: Tensor, deep: Tensor | None = None) -> Tensor:
    cut = tower.n_prefix + context.shape[-2]

    def one(words: Tensor) -> Tensor:
        own = words.expand(len(ids), -1, -1)
        full = torch.cat([embeds[:, : tower.n_prefix], own.to(embeds.dtype), embeds[:, cut:]], dim=1)
        return tower.encode(full, ids, deep=deep)

    return one(context) if context.ndim == 2 else torch.stack([one(words) for words in context])


def shared(
    tower: TextTower, context: Tensor, embeds: Tensor, ids: Tensor, deep: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    start = embeds[0, : tower.n_prefix].expand(*context.shape[:-2], -1, -1)
    front = torch.cat([start, context.to(embeds.dtype)], dim=-2)
    return encode_shared_prefix(tower, front, embeds[:, front.shape[-2] :], ids, deep=deep, chunk=chunk)


def gradients(features: Tensor, *wanted: Tensor) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(features.shape, generator=generator)
    return torch.autograd.grad((torch.nn.functional.normalize(features.float(), dim=-1) * weight).sum(), wanted)


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("rows", [None, 1, 3])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_value_and_gradient(tiny: Build, kind: str, chunk: int | None, rows: int | None, depth: int) -> None:
    tower = tiny(kind).tower
    context, embeds, ids = problem(tower, 4, rows)
    deep = 0.5 * torch.randn(depth, 4, 64, generator=torch.Generator().manual_seed(2)) if depth else None
    leaves = [context.requires_grad_()] + ([deep.requires_grad_()] if deep is not None else [])
    expected = plain(tower, context, embeds, ids, deep)
    got = shared(tower, context, embeds, ids, deep, chunk)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5
    for mine, theirs in zip(gradients(got, *leaves), gradients(expected, *leaves), strict=True):
        assert theirs.norm() > 0
        assert relative(mine, theirs) <= 1e-4


def test_a_deep_prompt_shorter_than_the_context(tiny: Build) -> None:
    tower = tiny("clip").tower
    context, embeds, ids = problem(tower, 5)
    deep = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(2))
    got, expected = shared(tower, context, embeds, ids, deep), plain(tower, context, embeds, ids, deep)
    assert (got - expected).abs().max() <= 1e-5


def test_equal_lengths_need_no_packing_and_single_tokens_work(tiny: Build) -> None:
    tower = tiny("clip").tower
    ids = tower.trim(tower.tokenize(["x x dog", "x x cat"]))
    embeds, context = tower.embed(ids), torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    got = shared(tower, context, embeds, ids)
    assert (got - plain(tower, context, embeds, ids)).abs().max() <= 1e-5
    # Only the end token left behind the prefix.
    whole = embeds[:1, :-1][0]
    got = encode_shared_prefix(tower, whole, embeds[:1, -1:], ids[:1])
    assert (got - tower.encode(embeds[:1], ids[:1])).abs().max() <= 1e-5


def test_words_as_prefix_give_encode_text(tiny: Build) -> None:
    tiny_clip = tiny("clip")
    tower = tiny_clip.tower
    ids = tower.tokenize(["a photo of a dog", "a photo of a big cat"])
    embeds = tower.embed(ids)
    got = encode_shared_prefix(tower, embeds[0, :5], embeds[:, 5:], ids)
    assert (got - tiny_clip.model.encode_text(ids)).abs().max() <= 1e-5


def test_no_grad_and_suffix_gradient(tiny: Build) -> None:
    tower = tiny("clip").tower
    context, embeds, ids = problem(tower, 4)
    with torch.no_grad():
        got = shared(tower, context, embeds, ids, chunk=2)
    assert not got.requires_grad
    embeds = embeds.detach().requires_grad_()
    (mine,) = gradients(shared(tower, context, embeds, ids, chunk=2), embeds)
    (theirs,) = gradients(plain(tower, context, embeds, ids), embeds)
    # The start token's gradient is collected in the first class by one path, in every class by the other.
    assert relative(mine[:, 5:], theirs[:, 5:]) <= 1e-4
    assert relative(mine[:, 0].sum(0), theirs[:, 0].sum(0)) <= 1e-4


def test_trained_weights_get_the_same_gradient(tiny: Build) -> None:
    tower = tiny("clip-layerscale").tower
    blocks: Any = tower.blocks
    weights = [blocks[1].attn.in_proj_weight, blocks[2].mlp.c_fc.weight]
    context, embeds, ids = problem(tower, 4)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        expected = gradients(plain(tower, context, embeds, ids), *weights)
        for chunk in (None, 2):
            got = gradients(shared(tower, context, embeds, ids, chunk=chunk), *weights)
            assert all(relative(a, b) <= 1e-4 for a, b in zip(got, expected, strict=True))
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def test_chunks_bound_what_backward_keeps(tiny: Build) -> None:
    """Tensors saved for backward, counted: with chunks they do not grow with the classes."""
    tower = tiny("clip").tower

    def saved(n_classes: int, chunk: int | None) -> int:
        ids = tower.trim(tower.tokenize([f"x x x x dog {i}" for i in range(n_classes)]))
        embeds = tower.embed(ids)
        context = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            shared(tower, context, embeds, ids, chunk=chunk)
        return total

    base, more = saved(8, 4), saved(64, 4)
    assert more - base < (saved(64, None) - saved(8, None)) / 20


@settings(max_examples=15, deadline=None)
@given(m=st.integers(0, 8), rows=st.sampled_from([None, 1, 2]), seed=st.integers(0, 99), chunk=st.integers(1, 5))
def test_any_shape(tiny: Build, m: int, rows: int | None, seed: int, chunk: int) -> None:
    tower = tiny("clip").tower
    context, embeds, ids = problem(tower, m, rows, seed)
    got = shared(tower, context, embeds, ids, chunk=chunk)
    assert (got - plain(tower, context, embeds, ids)).abs().max() <= 1e-5


def test_no_prefix_at_all(tiny: Build) -> None:
    tower = tiny("clip").tower
    ids = tower.trim(tower.tokenize(["dog", "big cat"]))
    embeds = tower.embed(ids)
    got = encode_shared_prefix(tower, embeds[0, :0], embeds, ids)
    assert (got - tower.encode(embeds, ids)).abs().max() <= 1e-5


def test_refusals(tiny: Build) -> None:
    for kind in ("siglip", "coca", "roberta", "clip-both-ways", "clip-scaled-heads", "clip-first"):
        tower = tiny(kind).tower
        with pytest.raises(ValueError, match="cannot share a prefix"):
            encode_shared_prefix(tower, torch.zeros(2, 64), torch.zeros(1, 3, 64), torch.zeros(1, 5).long())
    tower = tiny("clip").tower
    ids = tower.tokenize(["x x dog"])
    with pytest.raises(ValueError, match=r"suffix is \(1, 3, 64\)"):
        encode_shared_prefix(tower, torch.zeros(2, 64), torch.zeros(1, 3, 64), ids)
    with pytest.raises(ValueError, match="expected \\(P, 64\\)"):
        encode_shared_prefix(tower, torch.zeros(2, 32), torch.zeros(1, 22, 64), ids)
    with pytest.raises(ValueError, match="ends inside the prefix"):
        encode_shared_prefix(tower, torch.zeros(10, 64), torch.zeros(1, 14, 64), ids)
    with pytest.raises(ValueError, match="chunk is 0"):
        encode_shared_prefix(tower, torch.zeros(2, 64), torch.zeros(1, 22, 64), ids, chunk=0)


def test_the_prefix_is_computed_once(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = tiny("clip").tower
    context, embeds, ids = problem(tower, 4)
    tokens: list[int] = []
    block = tower.blocks[0]
    handle = block.mlp.register_forward_hook(lambda _, args, __: tokens.append(args[0].numel() // 64))  # type: ignore
    try:
        shared(tower, context, embeds, ids)
    finally:
        handle.remove()
    real = int((tower.lengths(ids) - 5).sum())
    assert tokens == [5 + real]
    assert prefix.prefix_keys(tower, embeds[:1, :5])[0].k.shape == (1, 4, 5, 16)  # type: ignore[arg-type]

"""Prompts with the words' own embeddings equal `encode_text` of the sentence; overflow is refused early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from ogenlib.towers import TextTower, context_from_words, encode_prompts, prompt_tokens

from .conftest import EVERY, Tiny, shake
from .test_prefix import gradients, relative
from .test_text import reference

Build = Callable[[str], Tiny]
NAMES = ["dog", "big red fox", "blue_sky"]
SPOKEN = ["dog", "big red fox", "blue sky"]
SENTENCES = {
    "end": [f"an icon of a {name}." for name in SPOKEN],
    "middle": [f"an icon {name} of a." for name in SPOKEN],
    "front": [f"{name} an icon of a." for name in SPOKEN],
}


def random_context(*shape: int) -> Tensor:
    return 0.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_own_words_give_encode_text(tiny: Build, kind: str, position: str) -> None:
    model = tiny(kind)
    tokens = prompt_tokens(model.tower, NAMES, 4, position)
    context = context_from_words(model.tower, "an icon of a")
    assert context.shape == (4, 64) and context.dtype == torch.float32
    expected = reference(model.model, model.tower.tokenize(SENTENCES[position]))
    for path in ("auto", "plain"):
        for chunk in (None, 2):
            got = encode_prompts(model.tower, tokens, context, path=path, chunk=chunk)
            assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_paths_and_chunks_agree_in_value_and_gradient(tiny: Build, kind: str, position: str) -> None:
    tower = tiny(kind).tower
    tokens = prompt_tokens(tower, NAMES, 5, position)
    for shape, per_image in (((5, 64), False), ((3, 5, 64), False), ((2, 5, 64), True)):
        context = random_context(*shape).requires_grad_()
        expected = encode_prompts(tower, tokens, context, per_image=per_image, path="plain")
        assert expected.shape == ((2, 3, tower.embed_dim) if per_image else (3, tower.embed_dim))
        (wanted,) = gradients(expected, context)
        assert wanted.norm() > 0
        for chunk in (None, 2):
            got = encode_prompts(tower, tokens, context, per_image=per_image, chunk=chunk)
            assert (got - expected).abs().max() <= 1e-5
            assert relative(gradients(got, context)[0], wanted) <= 1e-4


def test_image_rows_are_independent_prompts(tiny: Build) -> None:
    tower = tiny("siglip").tower
    tokens, context = prompt_tokens(tower, NAMES, 4), random_context(2, 4, 64)
    got = encode_prompts(tower, tokens, context, per_image=True)
    for row, words in zip(got, context, strict=True):
        assert (row - encode_prompts(tower, tokens, words)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["clip", "eva", "coca", "siglip"])
def test_deep_prompts_on_both_paths(tiny: Build, kind: str) -> None:
    tower = tiny(kind).tower
    tokens, context = prompt_tokens(tower, NAMES, 4), random_context(4, 64).requires_grad_()
    deep = random_context(2, 4, 64).requires_grad_()
    expected = encode_prompts(tower, tokens, context, deep=deep, path="plain")
    got = encode_prompts(tower, tokens, context, deep=deep, chunk=1)
    assert (got - expected).abs().max() <= 1e-5
    wanted = gradients(expected, context, deep)
    for mine, theirs in zip(gradients(got, context, deep), wanted, strict=True):
        assert relative(mine, theirs) <= 1e-4
    assert wanted[1].norm() > 0


def test_class_specific_context_belongs_to_its_class(tiny: Build) -> None:
    tower = tiny("clip").tower
    tokens, context = prompt_tokens(tower, NAMES, 4), random_context(3, 4, 64)
    before = encode_prompts(tower, tokens, context)
    context[1] = -context[1]
    moved = (encode_prompts(tower, tokens, context) - before).abs().amax(-1)
    assert moved[1] > 1e-3 and max(moved[0], moved[2]) <= 1e-6


def test_slots_and_spans(tiny: Build) -> None:
    tower = tiny("clip").tower
    wanted = {
        "end": ([1, 2, 3, 4], (5, 6), [1, 2, 3, 4], (5, 8)),
        "middle": ([1, 2, 4, 5], (3, 4), [1, 2, 6, 7], (3, 6)),
        "front": ([2, 3, 4, 5], (1, 2), [4, 5, 6, 7], (1, 4)),
    }
    for position, (slots_0, span_0, slots_1, span_1) in wanted.items():
        tokens = prompt_tokens(tower, ["dog", "big red fox"], 4, position)
        assert tokens.slots.tolist() == [slots_0, slots_1] and tokens.spans == (span_0, span_1)
        assert tokens.lengths.tolist() == [8, 10] and tokens.ids.shape == (2, 10)
    odd = prompt_tokens(tower, ["dog"], 3, "middle")
    assert odd.slots.tolist() == [[1, 3, 4]]
    assert prompt_tokens(tiny("siglip").tower, ["dog"], 2).slots.tolist() == [[0, 1]]


def test_no_context_is_the_bare_name(tiny: Build) -> None:
    for kind in ("clip", "siglip", "roberta"):
        model = tiny(kind)
        tokens = prompt_tokens(model.tower, ["dog", "big cat"], 0)
        got = encode_prompts(model.tower, tokens, torch.zeros(0, 64))
        expected = reference(model.model, model.tower.tokenize(["dog.", "big cat."]))
        assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", EVERY)
def test_overflow_is_refused_before_training(tiny: Build, kind: str) -> None:
    tower = tiny(kind).tower
    special = (0 if kind == "siglip" else 1) + 1
    room = 24 - special - len(["big", "red", "fox", "."])
    assert prompt_tokens(tower, ["dog", "big red fox"], room).ids.shape == (2, 24)
    with pytest.raises(ValueError, match=f"'big red fox' needs 25 .*24: use n_context={room}"):
        prompt_tokens(tower, ["dog", "big red fox"], room + 1)
    with pytest.raises(ValueError, match="shorten the name"):
        prompt_tokens(tower, ["dog " * 30], 1)


def test_bad_arguments_are_named(tiny: Build) -> None:
    tower = tiny("clip").tower
    tokens = prompt_tokens(tower, NAMES, 4)
    for names in ([], "dog", ["dog", " _ "]):
        with pytest.raises(ValueError, match=r"names is|is empty"):
            prompt_tokens(tower, names, 4)
    with pytest.raises(ValueError, match="end, middle, front"):
        prompt_tokens(tower, NAMES, 4, "back")
    with pytest.raises(ValueError, match="n_context is -1"):
        prompt_tokens(tower, NAMES, -1)
    with pytest.raises(ValueError, match="hold no token"):
        context_from_words(tower, "  ")
    with pytest.raises(ValueError, match=r"context is \(3, 64\), expected \(4, 64\) or \(3, 4, 64\)"):
        encode_prompts(tower, tokens, torch.zeros(3, 64))
    with pytest.raises(ValueError, match="per_image=True"):
        encode_prompts(tower, tokens, torch.zeros(4, 64), per_image=True)
    with pytest.raises(ValueError, match="auto, plain, shared"):
        encode_prompts(tower, tokens, torch.zeros(4, 64), path="fast")
    with pytest.raises(ValueError, match="chunk is 0"):
        encode_prompts(tower, tokens, torch.zeros(4, 64), chunk=0)


def test_asking_for_the_shared_path_where_it_is_not_exact(tiny: Build) -> None:
    tower = tiny("clip").tower
    with pytest.raises(ValueError, match="name stands at the middle"):
        encode_prompts(tower, prompt_tokens(tower, NAMES, 4, "middle"), torch.zeros(4, 64), path="shared")
    with pytest.raises(ValueError, match="class-specific"):
        encode_prompts(tower, prompt_tokens(tower, NAMES, 4), torch.zeros(3, 4, 64), path="shared")
    siglip = tiny("siglip").tower
    with pytest.raises(ValueError, match="not causal"):
        encode_prompts(siglip, prompt_tokens(siglip, NAMES, 4), torch.zeros(4, 64), path="shared")


def low_precision(registry: dict[str, str], tokenizer: Any, precision: str) -> TextTower:
    torch.manual_seed(0)  # open_clip draws its weights from the global generator
    return TextTower.from_open_clip(shake(open_clip.create_model(registry["clip"], precision=precision)), tokenizer)


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_context_stays_fp32_in_a_bf16_model(registry: dict[str, str], tiny: Build, precision: str) -> None:
    tower = low_precision(registry, tiny("clip").tokenizer, precision)
    full = tiny("clip").tower
    assert tower.can_share_prefix
    context = random_context(4, 64).requires_grad_()
    expected = encode_prompts(full, prompt_tokens(full, NAMES, 4), context)
    (wanted,) = gradients(expected, context)
    for path in ("plain", "shared"):
        for chunk in (None, 2):
            got = encode_prompts(tower, prompt_tokens(tower, NAMES, 4), context, path=path, chunk=chunk)
            assert got.dtype == torch.bfloat16
            (gradient,) = gradients(got, context)
            assert gradient.dtype == torch.float32 and context.dtype == torch.float32
            assert relative(gradient, wanted) < 0.1
            assert relative(got.float(), expected) < 0.05
    # A step far below bf16's resolution must move a fp32 context.
    with torch.no_grad():
        nudged = context + 1e-6
    assert not torch.equal(nudged, context) and torch.equal(nudged.bfloat16(), context.bfloat16())
    assert context_from_words(tower, "an icon").dtype == torch.float32


@pytest.mark.parametrize("chunk", [None, 2])
def test_autocast_agrees_with_itself_and_with_fp32(tiny: Build, chunk: int | None) -> None:
    tower = tiny("clip").tower
    tokens = prompt_tokens(tower, NAMES, 4)
    context = random_context(4, 64).requires_grad_()
    expected = encode_prompts(tower, tokens, context)
    (wanted,) = gradients(expected, context)
    for path in ("plain", "shared"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = encode_prompts(tower, tokens, context, path=path, chunk=chunk)
        (gradient,) = gradients(got, context)
        assert gradient.dtype == torch.float32
        assert relative(got.float(), expected) < 0.05 and relative(gradient, wanted) < 0.1
        assert not torch.equal(got.float(), expected)

"""The text tower equals `encode_text` on every class of tower, or refuses it by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from ogenlib.towers import TextTower

from .conftest import EVERY, NATIVE, Tiny, WordTokenizer, shake

TEXTS = ["a photo of a dog.", "cat", "an icon of a big red fox."]
Build = Callable[[str], Tiny]


def reference(model: Any, ids: Tensor) -> Tensor:
    features = model.encode_text(ids, normalize=False)
    return features[0] if isinstance(features, tuple) else features


@pytest.mark.parametrize("kind", EVERY)
def test_own_embeddings_give_encode_text(tiny: Build, kind: str) -> None:
    model = tiny(kind)
    tower, ids = model.tower, model.tower.tokenize(TEXTS)
    assert ids.shape == (3, 24) and torch.equal(ids, model.tokenizer(TEXTS, context_length=24))
    expected = reference(model.model, ids)
    got = tower.encode(tower.embed(ids), ids)
    assert got.shape == (3, tower.embed_dim)
    assert (got - expected).abs().max() <= 1e-5
    # The features must depend on the embeddings, or the comparison above shows nothing.
    if kind != "clip-first":
        moved = tower.encode(tower.embed(ids).roll(1, dims=1), ids)
        assert (moved - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", EVERY)
def test_truncation_is_exact_where_promised(tiny: Build, kind: str) -> None:
    model = tiny(kind)
    tower, ids = model.tower, model.tower.tokenize(TEXTS)
    short = tower.trim(ids)
    if not tower.can_truncate:
        assert short.shape == ids.shape
        with pytest.raises(ValueError, match="exactly 24"):
            tower.encode(tower.embed(ids[:, :12]), ids[:, :12])
        return
    assert short.shape[1] < ids.shape[1]
    got = tower.encode(tower.embed(short), short)
    assert (got - reference(model.model, ids)).abs().max() <= 1e-5


def test_what_each_tower_says_of_itself(tiny: Build) -> None:
    facts = {
        "clip": (1, True, False, True, True),
        "clip-last": (1, True, False, False, True),
        "clip-both-ways": (1, False, False, False, False),
        "clip-scaled-heads": (1, True, False, True, False),
        "siglip": (0, False, False, False, False),
        "mobileclip": (1, False, False, False, False),
        "eva": (1, True, False, True, True),
        "coca": (1, True, True, False, False),
        "roberta": (1, False, True, True, False),
    }
    for kind, (n_prefix, causal, masked, truncate, share) in facts.items():
        tower = tiny(kind).tower
        found = (tower.n_prefix, tower.is_causal, tower.pads_are_masked, tower.can_truncate, tower.can_share_prefix)
        assert found == (n_prefix, causal, masked, truncate, share), kind
        assert tower.context_length == 24 and tower.width == 64 and len(tower.blocks) == (2 if kind == "roberta" else 3)
        assert tower.supports_deep_prompts == (kind != "roberta")
        assert tower.dtype == torch.float32 and tower.device.type == "cpu"


def test_lengths_end_at_the_pooled_token(tiny: Build) -> None:
    clip = tiny("clip").tower
    assert clip.lengths(clip.tokenize(["dog", "a photo of a dog."])).tolist() == [3, 8]
    assert tiny("clip-last").tower.lengths(tiny("clip-last").tower.tokenize(["dog"])).tolist() == [24]
    roberta = tiny("roberta").tower
    assert roberta.lengths(roberta.tokenize(["dog", "a photo of a dog."])).tolist() == [3, 8]


@pytest.mark.parametrize("kind", EVERY)
def test_a_text_that_fits_exactly_is_taken_one_more_word_is_refused(tiny: Build, kind: str) -> None:
    tower = tiny(kind).tower
    room = 24 - (0 if kind == "siglip" else 1) - 1
    ids = tower.tokenize(["dog " * room])
    assert ids.shape == (1, 24)
    with pytest.raises(ValueError, match=r"needs 25 tokens.*reads 24"):
        tower.tokenize(["cat", "dog " * (room + 1)])


@pytest.mark.parametrize("kind", ["clip", "eva", "coca", "siglip", "clip-last", "clip-scaled-heads"])
def test_deep_prompts_replace_hidden_states(tiny: Build, kind: str) -> None:
    """Against a hook-based twin: each block's input is overwritten after the start token."""
    model = tiny(kind)
    tower, ids = model.tower, model.tower.tokenize(TEXTS)
    deep = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    n = tower.n_prefix

    def overwrite(i: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = args[0].clone()
            x[:, n : n + 3] = deep[i - 1]
            return (x, *args[1:])

        return hook

    got = tower.encode(tower.embed(ids), ids, deep=deep)
    handles = [tower.blocks[i].register_forward_pre_hook(overwrite(i)) for i in (1, 2)]
    try:
        expected = reference(model.model, ids)
    finally:
        for handle in handles:
            handle.remove()
    assert (got - expected).abs().max() <= 1e-5
    assert (got - reference(model.model, ids)).abs().max() > 1e-3


def test_deep_prompts_are_checked(tiny: Build) -> None:
    tower = tiny("clip").tower
    ids = tower.tokenize(["dog"])
    with pytest.raises(ValueError, match="at most 2"):
        tower.encode(tower.embed(ids), ids, deep=torch.zeros(3, 2, 64))
    with pytest.raises(ValueError, match="expected \\(depth"):
        tower.encode(tower.embed(ids), ids, deep=torch.zeros(1, 2, 32))
    hf = tiny("roberta").tower
    ids = hf.tokenize(["dog"])
    with pytest.raises(ValueError, match="no deep prompts"):
        hf.encode(hf.embed(ids), ids, deep=torch.zeros(1, 2, 64))


def test_wrong_shapes_are_named(tiny: Build) -> None:
    tower = tiny("clip").tower
    ids = tower.tokenize(["dog"])
    with pytest.raises(ValueError, match=r"\(1, 24, 32\)"):
        tower.encode(torch.zeros(1, 24, 32), ids)
    with pytest.raises(ValueError, match="at most 24"):
        tower.encode(torch.zeros(1, 30, 64), torch.zeros(1, 30, dtype=torch.long))


def test_unknown_towers_are_refused_by_class() -> None:
    class RotaryText(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = RotaryText()

    with pytest.raises(TypeError, match="RotaryText"):
        TextTower.from_open_clip(Model(), WordTokenizer(24, 298, 299, 0))


def test_a_tower_that_computes_something_else_is_refused(tiny: Build, registry: dict[str, str]) -> None:
    class Doubling(type(open_clip.create_model(registry["eva"]).text)):  # type: ignore[misc]
        def forward(self, text: Tensor) -> Tensor:
            return 2 * super().forward(text)

    model = shake(open_clip.create_model(registry["eva"]))
    model.text.__class__ = Doubling
    with pytest.raises(ValueError, match=r"Doubling.*not reproduced"):
        TextTower.from_open_clip(model, tiny("eva").tokenizer)


def test_pooling_that_is_no_vector_is_refused(registry: dict[str, str], tiny: Build) -> None:
    model = open_clip.create_model(registry["eva"])
    model.text.pool_type = "none"
    with pytest.raises(ValueError, match="pools with 'none'"):
        TextTower.from_open_clip(model, tiny("eva").tokenizer)


def test_building_a_tower_leaves_the_mode_alone(registry: dict[str, str], tiny: Build) -> None:
    model = open_clip.create_model(registry["clip"])
    model.visual.eval()
    TextTower.from_open_clip(model, tiny("clip").tokenizer)
    assert model.training and model.transformer.training and not model.visual.training


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_low_precision_is_open_clips_own(registry: dict[str, str], tiny: Build, precision: str) -> None:
    model = shake(open_clip.create_model(registry["clip"], precision=precision))
    tower = TextTower.from_open_clip(model, tiny("clip").tokenizer)
    assert tower.dtype == torch.bfloat16
    ids = tower.tokenize(TEXTS)
    with torch.no_grad():
        expected = model.encode_text(ids)
        assert (tower.encode(tower.embed(ids).float(), ids) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", NATIVE)
def test_autocast_is_open_clips_own(tiny: Build, kind: str) -> None:
    model = tiny(kind)
    ids = model.tower.tokenize(TEXTS)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = reference(model.model, ids)
        assert (model.tower.encode(model.tower.embed(ids), ids) - expected).abs().max() <= 1e-5

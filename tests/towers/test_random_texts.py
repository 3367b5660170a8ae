"""Random strings for every kind of text tower: their form, the ids in them, and that towers read them whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ogenlib.towers import RandomTexts
from ogenlib.towers.text import encode_ids, first

KINDS = ("clip", "clip-last", "clip-first", "clip-eos", "clip-both-ways", "siglip", "mobileclip", "coca", "roberta")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strings_of_clip_are_ids_below_the_two_special_ones(tiny: Callable[[str], Any]) -> None:
    texts = RandomTexts(tiny("clip").tower, 500, 8)
    assert torch.equal(texts.ordinary, torch.arange(49406))
    ids = texts.draw(draws())
    assert ids.shape == (500, 24)
    assert (ids[:, 0] == 49406).all() and (ids[:, 9] == 49407).all() and (ids[:, 10:] == 0).all()
    words = ids[:, 1:9]
    assert words.max() < 49406 and words.min() >= 0
    # Uniform: 4000 draws, half of them below the middle.
    assert abs((words < 24703).float().mean() - 0.5) < 0.03
    assert torch.equal(tiny("clip").tower.lengths(ids), torch.full((500,), 10))
    assert tiny("clip").tower.trim(ids).shape == (500, 10)


def test_strings_are_new_at_every_call_and_a_seed_decides(tiny: Callable[[str], Any]) -> None:
    texts, source = RandomTexts(tiny("clip").tower, 5, 4), draws()
    one, two = texts.draw(source), texts.draw(source)
    assert not torch.equal(one, two) and torch.equal(one, texts.draw(draws()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tower_reads_them_as_its_model_does(kind: str, tiny: Callable[[str], Any]) -> None:
    made = tiny(kind)
    tower = made.tower
    texts = RandomTexts(tower, 6, 5)
    ids = texts.draw(draws())
    tokens = tower.tokens
    around = tokens.n_prefix + tokens.n_suffix
    example = tower.tokenize(["dog"])[0]
    assert torch.equal(ids[:, : tokens.n_prefix], example[: tokens.n_prefix].expand(6, -1))
    assert (ids[:, 5 + around :] == tokens.pad_id).all()
    words = ids[:, tokens.n_prefix : tokens.n_prefix + 5]
    assert set(words.flatten().tolist()) <= set(texts.ordinary.tolist()) and int(words.max()) < tower.vocabulary_size
    ends = {*example[: tokens.n_prefix].tolist(), int(example[tokens.n_prefix + 1])}
    assert not ends & set(texts.ordinary.tolist())
    with torch.no_grad():
        expected = first(made.model.encode_text(ids, normalize=False))
        torch.testing.assert_close(encode_ids(tower, ids), expected, atol=1e-5, rtol=1e-4)
        moved = ids.clone()
        moved[:, tokens.n_prefix + 4] = moved[:, tokens.n_prefix + 4].roll(1)
        changed = (encode_ids(tower, moved) - expected).norm(dim=-1) > 1e-6
    same = moved[:, tokens.n_prefix + 4] == ids[:, tokens.n_prefix + 4]
    assert bool((changed | same).all())  # the last random word is not behind the end


def test_masked_padding_is_no_word(tiny: Callable[[str], Any]) -> None:
    roberta = tiny("roberta").tower
    assert roberta.tokens.pad_id not in RandomTexts(roberta, 2, 3).ordinary.tolist()


def test_bad_strings_are_refused(tiny: Callable[[str], Any]) -> None:
    tower = tiny("clip").tower
    with pytest.raises(ValueError, match=r"length=23: .*2 special tokens .*at most 22"):
        RandomTexts(tower, 4, 23)
    with pytest.raises(ValueError, match="strings=0: must be 1 or more"):
        RandomTexts(tower, 0, 3)
    assert RandomTexts(tower, 4, 22).draw(draws()).shape == (4, 24)

"""Texts of classes: templates or captions, a text for every image, class weights as means."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from ogenlib.hosts.class_texts import ClassTexts, distinct_texts, mean_rows
from ogenlib.hosts.zero_shot import zero_shot_weights

NAMES = ("red_apple", "dog")
TEMPLATES = ("a {}.", "an icon of a {}.")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_templates_are_filled_with_the_name_and_captions_stand_before_them() -> None:
    texts = ClassTexts(NAMES, TEMPLATES)
    assert texts.of("red_apple") == ("a red apple.", "an icon of a red apple.") and not texts.one_each
    given = ClassTexts(NAMES, TEMPLATES, {"dog": ["woof"], "red_apple": ["sweet", "round"]})
    assert given.of("dog") == ("woof",) and given.of("fox") == ("a fox.", "an icon of a fox.")
    assert ClassTexts(NAMES, "{}").one_each and not given.one_each


def test_a_text_is_drawn_for_every_image_and_each_as_often() -> None:
    texts = ClassTexts(NAMES, TEMPLATES)
    drawn = texts.draw(["dog"] * 400, draws())
    counts = Counter(drawn)
    assert counts.keys() == {"a dog.", "an icon of a dog."} and 160 < counts["a dog."] < 240
    assert drawn == texts.draw(["dog"] * 400, draws()) != texts.draw(["dog"] * 400, draws(1))
    mixed = texts.draw(["dog", "red_apple"] * 3, draws())
    assert all(name in text for name, text in zip(["dog", "red apple"] * 3, mixed, strict=True))


def test_single_texts_draw_nothing() -> None:
    source = draws()
    state = source.get_state()
    assert ClassTexts(NAMES, "a {}.").draw(["dog", "red_apple"], source) == ["a dog.", "a red apple."]
    assert torch.equal(source.get_state(), state)


def test_every_process_draws_for_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, names = ClassTexts(NAMES, TEMPLATES), ["dog"] * 5
    whole, parts, after = texts.draw(names, draws()), [], []
    for rank in range(2):
        monkeypatch.setattr("ogenlib.distributed.world", lambda rank=rank: (rank, 2))
        source = draws()
        parts += texts.draw(names[:3] if rank == 0 else names[:2], source, total=5)
        after.append(source.get_state())
    assert parts == whole and torch.equal(*after)


def test_equal_texts_are_one() -> None:
    distinct, places = distinct_texts(["b", "a", "b", "c", "a"])
    assert distinct == ["b", "a", "c"] and places.tolist() == [0, 1, 0, 2, 1]


def test_means_are_the_zero_shot_weights(clip) -> None:
    for templates in (TEMPLATES, TEMPLATES[:1]):
        texts = ClassTexts(NAMES, templates)
        got = mean_rows(clip.encode_text, [texts.of(name) for name in NAMES])
        torch.testing.assert_close(got, zero_shot_weights(clip, NAMES, templates), atol=1e-6, rtol=0)
    ragged = mean_rows(clip.encode_text, [["a dog."], ["a", "b", "c"]])
    mean = clip.encode_text(["a", "b", "c"]).mean(0)
    torch.testing.assert_close(ragged[1], mean / mean.norm(), atol=1e-6, rtol=0)
    torch.testing.assert_close(ragged[0], clip.encode_text(["a dog."])[0], atol=1e-6, rtol=0)


def test_bad_texts_are_named() -> None:
    with pytest.raises(ValueError, match=r"texts has none for 1 of 2 names: \['dog'\]"):
        ClassTexts(NAMES, "{}", {"red_apple": ["x"]})
    with pytest.raises(TypeError, match=r"texts\['dog'\] is the string 'x'; pass a list"):
        ClassTexts(NAMES, "{}", {"dog": "x", "red_apple": ["x"]})
    for empty in ([], [" "]):
        with pytest.raises(ValueError, match=r"texts\['dog'\] is .* at least one text"):
            ClassTexts(NAMES, "{}", {"dog": empty, "red_apple": ["x"]})
    with pytest.raises(ValueError, match="must each hold"):
        ClassTexts(NAMES, "no place")

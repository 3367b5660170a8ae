"""IVLP: prompts in both towers that know nothing of each other."""

from __future__ import annotations

import pytest
import torch
from prompted_world import NAMES, batch, image_rows, made, make_clip, pixels, text_rows

from ogenlib.hosts import IVLP, CoOp


@pytest.fixture(scope="module")
def world():
    return make_clip()


def test_cross_entropy_by_hand(world) -> None:
    host = made("ivlp", world)
    assert host.visual.shape == (3, 2, 24) and host.text_prompts().shape == (3, 2, 16)
    chances = (
        world.logit_scale
        * image_rows(world, pixels(world), host.visual)
        @ text_rows(world, NAMES, host.text_prompts()).T
    ).softmax(-1)
    expected = -sum(chances[i, i % 3].log().item() for i in range(5)) / 5
    terms = host.losses(batch(world))
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-4) and set(terms) == {"ce"}


def test_each_side_moves_its_own_features_only(world) -> None:
    host = made("ivlp", world)
    z, w = host.image_features(batch(world)), host.class_weights()
    with torch.no_grad():
        host.visual *= -1
    assert torch.equal(host.class_weights(), w) and not torch.allclose(host.image_features(batch(world)), z, atol=1e-3)
    z = host.image_features(batch(world))
    with torch.no_grad():
        host.deep_context *= -1
    assert torch.equal(host.image_features(batch(world)), z)
    assert not torch.allclose(host.class_weights(), w, atol=1e-3)


def test_token_counts_are_independent(world) -> None:
    host = IVLP(world, NAMES, n_context=4, n_visual=5, depth=2)
    assert host.text_prompts().shape == (2, 4, 16) and host.visual.shape == (2, 5, 24)
    with pytest.raises(ValueError, match="n_visual=0: at least one token"):
        IVLP(world, NAMES, n_visual=0)


def test_shallow_text_is_coop(world) -> None:
    host = IVLP(world, NAMES, n_context=4, depth=1)
    coop = CoOp(world, NAMES, "a photo of a")
    torch.testing.assert_close(host.class_weights(), coop.class_weights(), atol=1e-6, rtol=0)


def test_chunks_change_nothing(world) -> None:
    whole, parts = made("ivlp", world), made("ivlp", world, chunk=2)
    torch.testing.assert_close(whole.class_weights(), parts.class_weights(), atol=1e-6, rtol=0)
    assert parts.config()["chunk"] == 2

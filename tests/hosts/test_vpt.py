"""VPT: tokens among the patches, fixed class weights."""

from __future__ import annotations

import pytest
import torch
from prompted_world import NAMES, OTHERS, batch, draw, image_rows, made, make_clip, pixels

from ogenlib.hosts import VPT, ZeroShot

TEMPLATES = ["a {}.", "the {} here"]


@pytest.fixture(scope="module")
def world():
    return make_clip()


def test_class_weights_are_zero_shot_for_any_names(world) -> None:
    host = made("vpt", world, templates=TEMPLATES)
    for names in (NAMES, OTHERS):
        assert torch.equal(host.class_weights(names), ZeroShot(world, names, TEMPLATES).class_weights())
    assert host.reference_templates() == tuple(TEMPLATES) and set(host.trainable()) == {"visual"}


def test_cross_entropy_by_hand(world) -> None:
    host = made("vpt", world, templates=TEMPLATES, n_visual=3, depth=3)
    z = image_rows(world, pixels(world), host.visual)
    w = ZeroShot(world, NAMES, TEMPLATES).class_weights()
    chances = (world.logit_scale * z @ w.T).softmax(-1)
    expected = -sum(chances[i, i % 3].log().item() for i in range(5)) / 5
    terms = host.losses(batch(world))
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-5) and set(terms) == {"ce"}


def test_deep_tokens_replace_those_of_the_layer_before(world) -> None:
    host = VPT(world, NAMES, depth=4)
    assert host.visual.shape == (4, 8, 24) and host.visual.std().item() == pytest.approx(0.02, rel=0.1)
    z = host.image_features(batch(world))
    for layer in range(4):
        with torch.no_grad():
            host.visual[layer] += draw(8, 24, seed=layer)
        assert (host.image_features(batch(world)) - z).abs().max() > 1e-3
        z = host.image_features(batch(world))


def test_shallow_and_counts(world) -> None:
    assert VPT.shallow(world, NAMES).visual.shape == (1, 8, 24)
    assert VPT.shallow(world, NAMES, n_visual=50).visual.shape == (1, 50, 24)
    assert VPT(world, NAMES).depth == 4  # of 12: the tower has no more
    with pytest.raises(ValueError, match="n_visual=0: at least one token"):
        VPT(world, NAMES, n_visual=0)


def test_options_of_a_dataset() -> None:
    assert VPT.dataset_options(["an icon of a {}."]) == {"templates": ["an icon of a {}."]}

"""MaPLe: visual prompts are linear maps of the text prompts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from prompted_world import NAMES, batch, image_rows, made, make_clip, pixels, text_rows

from ogenlib.hosts import MaPLe


@pytest.fixture(scope="module")
def world():
    return make_clip()


def coupled(host: MaPLe) -> torch.Tensor:
    """Every layer's map, token by token."""
    layers = []
    for text, weight, bias in zip(host.text_prompts(), host.coupling, host.coupling_bias, strict=True):
        layers.append(torch.stack([F.linear(token, weight, bias) for token in text]))
    return torch.stack(layers)


def test_visual_prompts_are_the_mapped_text_prompts(world) -> None:
    host = made("maple", world)
    assert host.coupling.shape == (3, 24, 16) and host.coupling_bias.shape == (3, 24)
    torch.testing.assert_close(host.visual_prompts(), coupled(host), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        host.image_features(batch(world)), image_rows(world, pixels(world), coupled(host)), atol=1e-5, rtol=0
    )


def test_cross_entropy_by_hand(world) -> None:
    host = made("maple", world, n_context=3, depth=2)
    w = text_rows(world, NAMES, host.text_prompts())
    chances = (world.logit_scale * image_rows(world, pixels(world), coupled(host)) @ w.T).softmax(-1)
    expected = -sum(chances[i, i % 3].log().item() for i in range(5)) / 5
    terms = host.losses(batch(world))
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-4) and set(terms) == {"ce"}


def test_images_teach_the_text_prompts(world) -> None:
    host = made("maple", world)
    (host.image_features(batch(world)) * torch.arange(10.0)).sum().backward()
    assert set(host.trainable()) == {"context", "deep_context", "coupling", "coupling_bias"}
    for p in host.trainable().values():
        assert (p.grad.flatten(1).abs().sum(1) > 0).all()


def test_the_maps_start_as_torch_starts_a_linear_layer(world) -> None:
    host = MaPLe(world, NAMES)
    assert host.coupling.abs().max() <= 16**-0.5 and host.coupling.std().item() == pytest.approx(48**-0.5, rel=0.1)
    assert torch.equal(host.coupling[1], host.coupling[2]) and not torch.equal(host.coupling[0], host.coupling[1])
    assert MaPLe(world, NAMES, depth=1).coupling.shape == (1, 24, 16)

"""Trained copies of every kind of tower: exact at the start, apart from the model afterwards, named as open_clip's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tuned_world import BothTowers

from ogenlib.hosts import Batch, FullFT, zero_shot_weights
from ogenlib.towers import Backbone, weights_hash
from ogenlib.train.param_groups import factors, layer_decay

NAMES = ["dog", "cat"]


@pytest.mark.parametrize("kind", ["clip", "clip-layerscale", "resnet", "siglip", "mobileclip", "coca", "roberta"])
@pytest.mark.parametrize("make", [FullFT, BothTowers])
def test_a_copy_is_exact_and_trains_apart(tiny: Callable, kind: str, make: type[FullFT]) -> None:
    clip = Backbone(tiny(kind).model, tiny(kind).tokenizer, name=kind)
    host, before = make(clip, NAMES, "a {}"), weights_hash(clip.model)
    pixels = torch.randn(4, 3, *clip.image.image_size, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.tensor([0, 1, 0, 1]), pixels=pixels)
    with torch.no_grad():
        assert torch.equal(host.image_features(batch), clip.encode_image(pixels))
        expected = zero_shot_weights(clip, [*NAMES, "fox"], "a {}")
        torch.testing.assert_close(host.class_weights([*NAMES, "fox"]), expected, atol=1e-6, rtol=0)
    host.train()
    sum(host.losses(batch).values()).backward()
    torch.optim.SGD(host.trainable().values(), 0.1).step()
    twins = host.frozen_twins()
    assert sum(not torch.equal(p, start) for p, start in twins.values()) > len(twins) / 2
    assert weights_hash(clip.model) == before
    state = clip.model.state_dict()
    assert all(state[name].shape == tensor.shape for name, tensor in host.merged().items())
    assert set(host.merged()) >= {n for n in state if n.startswith("visual.")}
    names = list(host.trainable())
    assert {1.0} < set(factors(names, layer_decay(names, 0.5)).values())

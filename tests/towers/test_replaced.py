"""A model run with other tensors: what the function sees, what stays, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ogenlib.towers.replaced import call_replaced

WEIGHT, PROJECTION = "visual.transformer.resblocks.0.mlp.c_proj.weight", "text_projection"


def own(clip: Any, name: str) -> torch.Tensor:
    return clip.model.get_parameter(name)


def test_a_tower_runs_with_the_tensors_given_and_keeps_its_own(clip) -> None:
    pixels = torch.randn(2, 3, *clip.image.image_size, generator=torch.Generator().manual_seed(0))
    before, hashed = own(clip, WEIGHT).clone(), clip.weights_hash
    changed = (1.5 * before).requires_grad_()
    got = call_replaced(clip.model, {WEIGHT: changed}, clip.encode_image, pixels, normalize=False)
    got.square().sum().backward()
    assert changed.grad.abs().max() > 0
    plain = clip.encode_image(pixels, normalize=False)
    with torch.no_grad():
        own(clip, WEIGHT).mul_(1.5)
        expected = clip.encode_image(pixels, normalize=False)
        own(clip, WEIGHT).copy_(before)
    torch.testing.assert_close(got.detach(), expected, atol=1e-6, rtol=0)
    assert (expected - plain).abs().max() > 1e-2
    assert clip.weights_hash == hashed and torch.equal(own(clip, WEIGHT), before)
    assert own(clip, WEIGHT).grad is None and isinstance(own(clip, WEIGHT), torch.nn.Parameter)


def test_the_text_side_is_encode_text_with_the_same_tensors(clip) -> None:
    texts = ["a photo of a dog.", "a bus"]
    same = call_replaced(clip.model, {PROJECTION: own(clip, PROJECTION).clone()}, clip.encode_text, texts)
    assert torch.equal(same, clip.encode_text(texts))
    turned = call_replaced(clip.model, {PROJECTION: own(clip, PROJECTION).flip(1)}, clip.encode_text, texts)
    torch.testing.assert_close(turned, clip.encode_text(texts).flip(1), atol=1e-6, rtol=0)


def test_a_function_that_raises_leaves_the_model_as_it_was(clip) -> None:
    def fail() -> None:
        raise RuntimeError("stopped")

    before = own(clip, PROJECTION)
    with pytest.raises(RuntimeError, match="stopped"):
        call_replaced(clip.model, {PROJECTION: torch.zeros_like(before)}, fail)
    assert own(clip, PROJECTION) is before


def test_what_does_not_fit_is_named(clip) -> None:
    with pytest.raises(ValueError, match=r"'text_projection' is \(2, 2\), CLIP's is \(128, 128\)"):
        call_replaced(clip.model, {PROJECTION: torch.zeros(2, 2)}, clip.encode_text, ["a"])
    with pytest.raises(ValueError, match=r"'no.such' is \(2,\), CLIP's is none"):
        call_replaced(clip.model, {"no.such": torch.zeros(2)}, clip.encode_text, ["a"])


def test_recomputed_blocks_are_refused_where_gradients_are_taken(clip) -> None:
    same = {PROJECTION: own(clip, PROJECTION).clone()}
    clip.model.set_grad_checkpointing(True)
    try:
        with pytest.raises(ValueError, match=r"recomputes its blocks.*set_grad_checkpointing\(False\)"):
            call_replaced(clip.model, same, clip.encode_text, ["a"])
        with torch.no_grad():  # nothing is recomputed
            assert torch.equal(call_replaced(clip.model, same, clip.encode_text, ["a"]), clip.encode_text(["a"]))
    finally:
        clip.model.set_grad_checkpointing(False)

"""The image tower equals `encode_image` on every class of image tower."""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import pytest
import torch
from torch import Tensor, nn

from ogenlib.towers import ImageTower

from .conftest import Tiny, shake

Build = Callable[[str], Tiny]
KINDS = ("clip", "clip-quick", "resnet", "eva", "siglip", "mobileclip", "coca")


def pixels(tower: ImageTower) -> Tensor:
    return torch.randn(2, 3, *tower.image_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_encode_image(tiny: Build, kind: str) -> None:
    model = tiny(kind).model
    tower = ImageTower.from_open_clip(model)
    batch = pixels(tower)
    got = tower.encode(batch)
    assert got.shape == (2, tower.embed_dim)
    assert torch.equal(got, model.encode_image(batch, normalize=False))
    assert (got[0] - got[1]).abs().max() > 1e-4
    assert (got.norm(dim=-1) - 1).abs().max() > 1e-2


def test_who_takes_visual_prompts(tiny: Build) -> None:
    found = {kind: ImageTower.from_open_clip(tiny(kind).model).supports_visual_prompts for kind in KINDS}
    assert found == {kind: kind in ("clip", "clip-quick") for kind in KINDS}


def test_eval_mode_whatever_the_model_was_in(registry: dict[str, str]) -> None:
    model = shake(open_clip.create_model(registry["resnet"])).train()
    tower = ImageTower.from_open_clip(model)
    batch = pixels(tower)
    assert torch.equal(tower.encode(batch), tower.encode(batch))
    assert torch.equal(tower.encode(batch)[:1], tower.encode(batch[:1])) or (
        (tower.encode(batch)[:1] - tower.encode(batch[:1])).abs().max() <= 1e-5
    )


def test_towers_that_return_their_tokens_too(registry: dict[str, str]) -> None:
    model = shake(open_clip.create_model(registry["clip"]))
    tower = ImageTower.from_open_clip(model)
    batch = pixels(tower)
    expected = tower.encode(batch)
    model.visual.output_tokens = True
    assert isinstance(model.visual(batch), tuple)
    assert torch.equal(tower.encode(batch), expected)


@pytest.mark.parametrize("kind", ["clip", "eva"])
def test_pixels_are_cast_to_the_towers_precision(registry: dict[str, str], kind: str) -> None:
    model = shake(open_clip.create_model(registry[kind], precision="bf16"))
    tower = ImageTower.from_open_clip(model)
    got = tower.encode(pixels(tower))
    assert tower.dtype == got.dtype == torch.bfloat16
    assert torch.equal(got, model.encode_image(pixels(tower).bfloat16()))


def test_wrong_pixels_are_named(tiny: Build) -> None:
    tower = ImageTower.from_open_clip(tiny("clip").model)
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 48, 48)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
            tower.encode(torch.zeros(shape))
    with pytest.raises(TypeError, match="Linear has no image tower"):
        ImageTower.from_open_clip(nn.Linear(2, 2))

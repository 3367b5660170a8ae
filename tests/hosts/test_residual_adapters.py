"""Residual adapters in merged layers against the same adapters as modules of their own, and where they fit."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from adapted_world import shake, unmerged
from prompted_world import make_clip, pixels

from ogenlib.hosts.parts.residual_adapters import ResidualAdapter, TowerAdapters, image_blocks, text_blocks
from ogenlib.towers.replaced import call_replaced

TEXTS = ["a photo of a dog.", "an icon of a red apple."]


@pytest.fixture(scope="module")
def world() -> Any:
    return make_clip()


def tower(clip: Any, side: str, rank: int | None = None) -> tuple[TowerAdapters, Any, Any]:
    """Adapters off their start, their blocks, and what runs the tower."""
    blocks = image_blocks(clip) if side == "image" else text_blocks(clip)
    adapters = shake(TowerAdapters(clip.model, blocks, side, rank=rank))
    if side == "image":
        return adapters, blocks, lambda: clip.encode_image(pixels(clip), normalize=False)
    return adapters, blocks, lambda: clip.encode_text(TEXTS, normalize=False)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("side", ["image", "text"])
def test_both_forms_equal_adapters_of_their_own_in_value_and_gradient(world, side: str, rank: int | None) -> None:
    adapters, blocks, run = tower(world, side, rank)
    scale = torch.tensor(0.7)
    shares = torch.linspace(0, 1.25, len(adapters))
    parameters = list(adapters.parameters())
    merged = call_replaced(world.model, adapters.merged(scale, shares), run)
    with adapters.beside(scale, shares):
        beside = run()
    grads, grads_beside = (torch.autograd.grad(out.sin().sum(), parameters) for out in (merged, beside))
    with unmerged(blocks, [scale * s * a.matrix() for s, a in zip(shares, adapters.adapters(), strict=True)]):
        plain = run()
        expected = torch.autograd.grad(plain.sin().sum(), parameters)
    for out, own in ((merged, grads), (beside, grads_beside)):
        torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-5)
        for got, want in zip(own, expected, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3)
    assert (plain - run()).abs().max() > 0.05  # the adapters do something, and are gone afterwards


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("side", ["image", "text"])
def test_the_start_is_the_model_itself_and_can_be_left(world, side: str, rank: int | None) -> None:
    blocks = image_blocks(world) if side == "image" else text_blocks(world)
    adapters = TowerAdapters(world.model, blocks, side, rank=rank)
    for name, tensor in adapters.merged().items():
        assert torch.equal(tensor, world.model.get_parameter(name))
    _, _, run = tower(world, side)
    call_replaced(world.model, adapters.merged(), run).sin().sum().backward()
    moving = [p for n, p in adapters.named_parameters() if not n.endswith("down")]
    assert len(moving) == len(adapters) and all(p.grad.abs().max() > 0 for p in moving)
    with torch.no_grad():
        for p in moving:
            p.sub_(0.1 * p.grad)
    adapters.zero_grad()
    call_replaced(world.model, adapters.merged(), run).sin().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in adapters.parameters())


def test_the_written_formula_row_by_row() -> None:
    """``W' = W (P + I)``, ``b' = b (P + I)`` for rows times matrices, which torch's layers hold transposed."""
    draws = torch.Generator().manual_seed(0)
    adapter = shake(ResidualAdapter(4, 2, generator=draws))
    layer = torch.nn.Linear(6, 4)
    x = torch.randn(5, 6, generator=draws)
    turn = torch.eye(4) + adapter.matrix()
    expected = x @ (layer.weight.T @ turn) + layer.bias @ turn
    weight, bias = layer.weight + adapter.after(layer.weight), layer.bias + adapter.after(layer.bias)
    torch.testing.assert_close(x @ weight.T + bias, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(expected, layer(x) + layer(x) @ adapter.matrix(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"ls_init_value": 0.5}, {"block_type": "custom"}, {"no_causal_mask": True}])
def test_other_blocks_of_open_clips_own_text_tower(options: dict[str, Any]) -> None:
    clip = make_clip(text=options)
    adapters, blocks, run = tower(clip, "text")
    merged = call_replaced(clip.model, adapters.merged(), run)
    with unmerged(blocks, [a.matrix() for a in adapters.adapters()]):
        torch.testing.assert_close(merged, run(), atol=1e-5, rtol=1e-5)


def test_names_are_those_of_the_model(world) -> None:
    adapters, _, _ = tower(world, "text")
    assert adapters.layers[:2] == ("transformer.resblocks.0.attn.out_proj", "transformer.resblocks.0.mlp.c_proj")
    merged = adapters.merged()
    assert len(merged) == 4 * 3 and merged.keys() <= world.model.state_dict().keys()
    assert next(n for n, _ in adapters.named_parameters()) == "resblocks.0.attn.weight"


def test_a_low_precision_model_is_changed_in_fp32_and_keeps_its_dtype() -> None:
    clip = make_clip(dtype=torch.bfloat16)
    adapters, _, run = tower(clip, "image")
    name, layer = adapters.layers[1] + ".weight", clip.image.visual.transformer.resblocks[0].mlp.c_proj
    expected = layer.weight.float() + adapters.adapters()[1].matrix().T @ layer.weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        merged = adapters.merged()
    assert merged[name].dtype == torch.bfloat16 and torch.equal(merged[name], expected.to(torch.bfloat16))
    call_replaced(clip.model, merged, run).float().sum().backward()
    with adapters.beside(0.5):
        run().float().sum().backward()
    assert all(p.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in adapters.parameters())


def test_counts_of_the_paper() -> None:
    """20.5 M for ViT-B/16 and 64.5 M for ViT-L/14; under a quarter of what fine-tuning the image tower trains."""
    counts = {}
    for name in ("ViT-B-16", "ViT-L-14"):
        with torch.device("meta"):
            model = open_clip.create_model(name, device="meta")
        towers = [TowerAdapters(model, list(t.resblocks), "") for t in (model.visual.transformer, model.transformer)]
        counts[name] = sum(p.numel() for t in towers for p in t.parameters())
        assert counts[name] < 0.25 * sum(p.numel() for p in model.visual.parameters())
    assert counts == {"ViT-B-16": 20_447_232, "ViT-L-14": 64_487_424}


def test_towers_that_take_none_are_named(world) -> None:
    with pytest.raises(ValueError, match=r"the tower has blocks Linear without attn.out_proj.*VisionTransformer"):
        TowerAdapters(world.model, [torch.nn.Linear(2, 2)], "the tower")
    for rank in (0, 24):
        with pytest.raises(ValueError, match=rf"rank={rank}: must be 1 to 23 in a tower of width 24"):
            TowerAdapters(world.model, image_blocks(world), "the tower", rank=rank)

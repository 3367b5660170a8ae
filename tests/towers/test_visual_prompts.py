"""Visual prompts: extra tokens through open_clip's own blocks, against a plain second way to compute them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.towers import ImageTower, load_backbone

from .conftest import VIT, Tiny, shake

Build = Callable[[str], Tiny]
# Options of the vision transformer that a prompted forward has to carry through.
TOWERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deeper": {"layers": 4},
    "no-ln-pre": {"no_ln_pre": True},
    "layer-scale": {"ls_init_value": 0.5},
    "custom-blocks": {"block_type": "custom"},
    "norm-after-pool": {"final_ln_after_pool": True},
    "patch-dropout": {"patch_dropout": 0.5},
    "oblong": {"image_size": [32, 48]},
}


def build(kind: str, **model: Any) -> Any:
    """A random model with one of `TOWERS` as its image side."""
    if kind == "layer-scale":
        model["quick_gelu"] = True
    torch.manual_seed(0)
    text = {"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1}
    try:
        made = open_clip.model.CLIP(48, {**VIT, **TOWERS[kind]}, text, **model)
    except TypeError:
        pytest.skip(f"this open_clip builds no vision transformer with {TOWERS[kind]}")
    return shake(made)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(tower: ImageTower, n: int = 2) -> Tensor:
    return draw(n, 3, *tower.image_size)


def block_by_hand(block: Any, x: Tensor) -> Tensor:
    """Attention and MLP of one row of tokens `(L, W)`, written out with softmax."""
    attn, width = block.attn, x.shape[-1]
    heads = attn.num_heads
    q, k, v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    rows = []
    for h in range(heads):
        s = slice(h * width // heads, (h + 1) * width // heads)
        weights = (q[:, s] @ k[:, s].T / (width // heads) ** 0.5).softmax(-1)
        rows.append(weights @ v[:, s])
    x = x + block.ls_1(attn.out_proj(torch.cat(rows, dim=-1)))
    hidden = block.mlp.gelu(block.mlp.c_fc(block.ln_2(x)))
    return x + block.ls_2(block.mlp.c_proj(hidden))


def by_hand(visual: Any, pixels: Tensor, prompts: Tensor, deep: list[Tensor]) -> Tensor:
    """Features of every image on its own: prompts stand before the patches here, which changes nothing."""
    features = []
    for image in pixels:
        patches = F.conv2d(image[None], visual.conv1.weight, stride=visual.conv1.stride)[0].flatten(1).T
        x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        x = visual.ln_pre(x)
        n_prompts = len(prompts)
        for i, block in enumerate(visual.transformer.resblocks):
            if i == 0:
                x = torch.cat([x[:1], prompts, x[1:]])
            elif i <= len(deep):
                x = torch.cat([x[:1], deep[i - 1], x[1 + n_prompts :]])
            x = block_by_hand(block, x)
        features.append(visual.ln_post(x[0]) @ visual.proj)
    return torch.stack(features)


@pytest.mark.parametrize("kind", TOWERS)
def test_without_prompts_nothing_has_changed(kind: str) -> None:
    model = build(kind)
    tower = ImageTower.from_open_clip(model)
    assert tower.supports_visual_prompts and tower.width == 64 and tower.layers == TOWERS[kind].get("layers", 2)
    pixels = images(tower)
    assert torch.equal(tower.encode(pixels), model.encode_image(pixels, normalize=False))


@pytest.mark.parametrize(
    ("kind", "depth"),
    [(k, d) for k in TOWERS if k != "custom-blocks" for d in range(1, TOWERS[k].get("layers", 2) + 1)],
)
def test_prompts_equal_a_forward_written_by_hand(kind: str, depth: int) -> None:
    tower = ImageTower.from_open_clip(build(kind))
    prompts, deep = draw(3, 64, seed=1), draw(depth - 1, 3, 64, seed=2)
    got = tower.encode(images(tower), prompts=prompts, deep=deep if depth > 1 else None)
    expected = by_hand(tower.visual, images(tower), prompts, list(deep))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)
    assert (got - tower.encode(images(tower))).abs().max() > 1e-2


def test_custom_blocks_run_through_their_own_forward() -> None:
    """A block that is not nn.MultiheadAttention: three copies of a patch weigh as that patch given three times."""
    tower = ImageTower.from_open_clip(build("custom-blocks"))
    pixels = images(tower, 1)
    patch = tower.patch_tokens(pixels)[0, 2:3]
    hidden = torch.cat([tower.patch_tokens(pixels), patch.expand(1, 2, -1)], dim=1)
    expected = tower.visual.ln_post(tower.visual.transformer(hidden)[:, 0]) @ tower.visual.proj
    torch.testing.assert_close(tower.encode(pixels, prompts=patch.expand(2, -1)), expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_given_back_as_deep_prompts_change_nothing() -> None:
    tower = ImageTower.from_open_clip(build("deeper"))
    pixels, prompts = images(tower, 1), draw(3, 64, seed=1)
    seen: list[Tensor] = []
    blocks = tower.visual.transformer.resblocks
    hooks = [block.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for block in blocks]
    shallow = tower.encode(pixels, prompts=prompts)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(seen[0][0, -3:], prompts)
    own = torch.stack([x[0, -3:] for x in seen[1:]])
    for depth in (2, 3, 4):
        torch.testing.assert_close(tower.encode(pixels, prompts=prompts, deep=own[: depth - 1]), shallow)
    moved = own.clone()
    moved[1] += draw(3, 64, seed=3)
    same = [tower.encode(pixels, prompts=prompts, deep=given[:1]) for given in (moved, own)]
    assert torch.equal(*same)
    assert (tower.encode(pixels, prompts=prompts, deep=moved) - shallow).abs().max() > 1e-3


def test_a_deep_layer_forgets_the_prompts_of_the_layer_before_it_last() -> None:
    """Before the last block prompts are replaced, so what stood there only matters through the other tokens."""
    tower = ImageTower.from_open_clip(build("plain"))
    pixels, deep = images(tower), draw(1, 3, 64, seed=2)
    with torch.no_grad():
        tower.visual.transformer.resblocks[0].attn.in_proj_weight[128:].zero_()  # values: nobody hears anybody
        tower.visual.transformer.resblocks[0].attn.in_proj_bias[128:].zero_()
    a, b = (tower.encode(pixels, prompts=draw(3, 64, seed=s), deep=deep) for s in (1, 5))
    torch.testing.assert_close(a, b)
    assert (a - tower.encode(pixels, prompts=draw(3, 64, seed=1), deep=2 - deep)).abs().max() > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_prompts_and_nothing_else(checkpointing: bool) -> None:
    tower = ImageTower.from_open_clip(build("deeper"))
    prompts, deep = draw(2, 64, seed=1).requires_grad_(), draw(2, 2, 64, seed=2).requires_grad_()
    tower.visual.set_grad_checkpointing(checkpointing)
    target = draw(2, 48, seed=3)
    (tower.encode(images(tower), prompts=prompts, deep=deep) * target).sum().backward()
    assert all(p.grad is None for p in tower.visual.parameters())
    p2, d2 = prompts.detach().requires_grad_(), deep.detach().requires_grad_()
    (by_hand(tower.visual, images(tower), p2, list(d2)) * target).sum().backward()
    for got, expected in ((prompts.grad, p2.grad), (deep.grad, d2.grad)):
        assert got is not None and expected is not None and expected.flatten(-2).abs().sum(-1).min() > 1e-3
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_attention_multiplies_the_tokens_of_all_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = ImageTower.from_open_clip(build("deeper"))
    products = []
    for unfolded in (False, True):
        if unfolded:
            monkeypatch.setattr("ogenlib.towers.visual_prompts.folded_attention", nullcontext)
        prompts = draw(2, 64, seed=1).requires_grad_()
        with torch.autograd.profiler.profile() as run:
            tower.encode(images(tower), prompts=prompts).sum().backward()
        products.append(sum(event.count for event in run.key_averages() if event.key == "aten::bmm"))
    assert products[0] < products[1]


def test_patch_dropout_never_acts_on_a_prompted_image() -> None:
    model = build("patch-dropout")
    tower = ImageTower.from_open_clip(model)
    prompts = draw(2, 64, seed=1)
    expected = tower.encode(images(tower), prompts=prompts)
    model.train()
    torch.testing.assert_close(tower.encode(images(tower), prompts=prompts), expected, atol=1e-5, rtol=1e-5)
    assert (tower.encode(images(tower)) - model.eval().encode_image(images(tower))).abs().max() > 1e-3  # it would act
    model.train()
    tower.patch_tokens(images(tower))
    assert model.visual.patch_dropout.training  # as it was found


def test_transformers_that_want_tokens_first() -> None:
    tower = ImageTower.from_open_clip(build("plain"))
    expected = tower.encode(images(tower), prompts=draw(2, 64, seed=1), deep=draw(1, 2, 64, seed=2))
    transformer = tower.visual.transformer
    if not all(isinstance(b.attn, torch.nn.MultiheadAttention) for b in transformer.resblocks):
        pytest.skip("this open_clip knows batches first only")
    turned = copy.deepcopy(tower.visual)
    turned.transformer.batch_first = False
    for block in turned.transformer.resblocks:
        block.attn.batch_first = False
    got = ImageTower(turned).encode(images(tower), prompts=draw(2, 64, seed=1), deep=draw(1, 2, 64, seed=2))
    torch.testing.assert_close(got, expected)


def test_half_precision_towers_and_autocast(registry: dict[str, str]) -> None:
    exact, half = (
        ImageTower.from_open_clip(shake(_seeded(registry["clip"], precision))) for precision in ("fp32", "bf16")
    )
    prompts, deep = draw(2, 64, seed=1).requires_grad_(), draw(1, 2, 64, seed=2)
    expected = exact.encode(images(exact), prompts=prompts, deep=deep)
    low = half.encode(images(half), prompts=prompts, deep=deep)
    with torch.autocast("cpu", torch.bfloat16):
        cast = exact.encode(images(exact), prompts=prompts, deep=deep)
    assert low.dtype == cast.dtype == torch.bfloat16
    for got in (low, cast):
        assert F.cosine_similarity(got.float(), expected).min() > 0.999
        (gradient,) = torch.autograd.grad(got.float().sum(), prompts)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.abs().sum() > 0


def _seeded(name: str, precision: str) -> Any:
    torch.manual_seed(0)
    return open_clip.create_model(name, precision=precision)


def test_the_bundled_model() -> None:
    tower = load_backbone("ogen-tiny").image
    assert (tower.width, tower.layers) == (192, 6)
    got = tower.encode(images(tower), prompts=draw(2, 192, seed=1), deep=draw(5, 2, 192, seed=2))
    expected = by_hand(tower.visual, images(tower), draw(2, 192, seed=1), list(draw(5, 2, 192, seed=2)))
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("resnet", "ModifiedResNet has no place"), ("mobileclip", "TimmModel around ConvNeXt has no place"),
        ("eva", "TimmModel around"), ("siglip", "TimmModel around"), ("coca", "VisionTransformer pools with attention"),
    ],
)  # fmt: skip
def test_towers_without_prompts_refuse_by_name(tiny: Build, kind: str, said: str) -> None:
    tower = ImageTower.from_open_clip(tiny(kind).model)
    for ask in (
        lambda: tower.encode(images(tower), prompts=draw(2, 64)),
        lambda: tower.width,
        lambda: tower.layers,
        lambda: tower.patch_tokens(images(tower)),
    ):
        with pytest.raises(ValueError, match=f"{said}.*ViT-B-16"):
            ask()


def test_average_pooling_is_refused() -> None:
    model = build("plain")
    model.visual.pool_type = "avg"
    with pytest.raises(ValueError, match="VisionTransformer pools with 'avg'"):
        ImageTower(model.visual).encode(torch.zeros(1, 3, 32, 32), prompts=draw(2, 64))


@pytest.mark.parametrize(
    ("prompts", "deep", "said"),
    [
        (None, (1, 2, 64), "given without prompts"),
        ((2, 32), None, r"prompts are \(2, 32\), expected \(V, 64\)"),
        ((1, 2, 64), None, r"prompts are \(1, 2, 64\)"),
        ((0, 64), None, "at least one token"),
        ((2, 64), (2, 64), r"deep is \(2, 64\), expected \(depth - 1, 2, 64\)"),
        ((2, 64), (1, 3, 64), r"deep is \(1, 3, 64\)"),
        ((2, 64), (2, 2, 64), "deep has 2 layers, at most 1 of 2"),
    ],
)
def test_wrong_prompts_are_named(prompts: Any, deep: Any, said: str) -> None:
    tower = ImageTower.from_open_clip(build("plain"))
    given = {k: None if s is None else torch.zeros(s) for k, s in {"prompts": prompts, "deep": deep}.items()}
    with pytest.raises(ValueError, match=said):
        tower.encode(images(tower), **given)
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        tower.encode(torch.zeros(1, 3, 8, 8), prompts=torch.zeros(2, 64))

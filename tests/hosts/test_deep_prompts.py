"""What the hosts with prompts inside the towers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from prompted_world import (
    NAMES,
    OTHERS,
    PROMPTED,
    TEXT,
    VISION,
    batch,
    frozen_bank,
    image_rows,
    made,
    make_clip,
    moved,
    new_clip,
    pixels,
    steps,
    text_rows,
)  # fmt: skip

from ogenlib.hosts import Batch, build, method
from ogenlib.hosts.parts.deep_prompts import usable_depth
from ogenlib.ogen.wrapper import OGEN
from ogenlib.runs.saved import Classifier, load_run
from ogenlib.towers import EmbeddingTable

SMALL: dict[str, Any] = {"k": 2, "heads": 2, "iterations": 5, "rows": 6, "per_class": 4}


@pytest.fixture(scope="module")
def world() -> Any:
    return make_clip()


@contextmanager
def shared_prefix_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails where a prompt runs whole instead of behind the shared prefix."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a prompt was encoded whole")

    with monkeypatch.context() as patch:
        patch.setattr("ogenlib.towers.prompt._encode_plain", refuse)
        yield


@pytest.mark.parametrize("name", PROMPTED)
def test_both_sides_equal_the_towers_fed_by_hand(world, name: str) -> None:
    host = made(name, world)
    z = host.image_features(batch(world))
    torch.testing.assert_close(z, image_rows(world, pixels(world), host.visual_prompts()), atol=1e-6, rtol=0)
    if name != "vpt":
        for names in (NAMES, OTHERS):
            expected = text_rows(world, names, host.text_prompts())
            torch.testing.assert_close(host.class_weights(names), expected, atol=1e-5, rtol=0)
    frozen = world.encode_image(pixels(world))
    assert (z - frozen).abs().max() > 1e-2  # the prompts do something


@pytest.mark.parametrize("name", PROMPTED)
def test_losses_take_what_the_caller_has_computed(world, name: str) -> None:
    host = made(name, world)
    own = host.losses(batch(world))
    z, w = host.image_features(batch(world)), host.class_weights()
    given = host.losses(batch(world), z=z, w=w)
    assert own.keys() == given.keys() and all(torch.equal(own[k], given[k]) for k in own)
    other = host.losses(batch(world), z=z.roll(1, 0), w=w)
    assert not torch.equal(own["ce"], other["ce"])


@pytest.mark.parametrize("name", PROMPTED)
def test_training_lowers_the_loss_and_moves_prompts_only(world, name: str) -> None:
    before = {k: v.clone() for k, v in world.state_dict().items()}
    host = build(name, world, NAMES)
    start = {k: p.detach().clone() for k, p in host.trainable().items()}
    losses = steps(host, 8)
    assert losses[-1] < losses[0] - 0.05
    assert all(not torch.equal(p, start[k]) for k, p in host.trainable().items())
    assert all(p.grad is None and not p.requires_grad for p in world.parameters())
    assert all(torch.equal(v, before[k]) for k, v in world.state_dict().items())


@pytest.mark.parametrize("name", [n for n in PROMPTED if n != "vpt"])
def test_text_goes_behind_the_shared_prefix(world, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = made(name, world)
    with shared_prefix_only(monkeypatch):
        sum(host.losses(batch(world)).values()).backward()
    assert host.context.grad.abs().sum() > 0 and host.deep_context.grad.abs().sum() > 0


@pytest.mark.parametrize("name", PROMPTED)
def test_two_builds_are_equal_and_a_generator_makes_another(world, name: str) -> None:
    a, b = (build(name, world, NAMES).state_dict() for _ in range(2))
    c = build(name, world, NAMES, generator=torch.Generator().manual_seed(7)).state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("depth", [None, 1])
def test_a_saved_run_is_the_same_host(world, name: str, depth: int | None, tmp_path) -> None:
    host = made(name, world, depth=depth)
    host.save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=world)
    assert type(again) is type(host) and again.config() == host.config()
    assert torch.equal(again.class_weights(OTHERS), host.class_weights(OTHERS))
    assert torch.equal(again.image_features(batch(world)), host.image_features(batch(world)))
    assert again.losses(batch(world)) == host.losses(batch(world))


def test_a_saved_run_names_pictures(world, tmp_path) -> None:
    from PIL import Image

    host = made("ivlp", world)
    host.save(tmp_path)
    picture = Image.effect_noise((20, 20), 90).convert("RGB")
    (found,) = Classifier.load(tmp_path, clip=world).predict(picture, top_k=3)
    z = host.image_features(Batch(torch.zeros(1), pixels=world.preprocess(picture)[None]))
    chances = host.logits(z, host.class_weights()).softmax(-1)[0]
    assert found.names[0] == NAMES[int(chances.argmax())]
    assert found.probabilities == pytest.approx(chances.sort(descending=True).values.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", PROMPTED)
def test_features_alone_are_refused(world, name: str) -> None:
    host = build(name, world, NAMES)
    assert not host.uses_cached_features
    features = world.encode_image(pixels(world))
    with pytest.raises(ValueError, match=rf"features of the frozen image tower; {name} .*PixelBank\.load"):
        host.image_features(Batch(torch.zeros(5, dtype=torch.long), features=features))
    with pytest.raises(ValueError, match="neither features nor pixels"):
        host.image_features(Batch(torch.zeros(5, dtype=torch.long)))


@pytest.mark.parametrize("name", PROMPTED)
def test_bf16_autocast_stays_close_and_keeps_fp32_parameters(world, name: str) -> None:
    host = made(name, world)
    exact = host.losses(batch(world))
    with torch.autocast("cpu", torch.bfloat16):
        low = host.losses(batch(world))
    assert low.keys() == exact.keys()
    for k in exact:
        assert low[k].item() == pytest.approx(exact[k].item(), rel=0.05, abs=0.02)
    parameters = list(host.trainable().values())
    gradients = [torch.autograd.grad(sum(t.values()), parameters) for t in (exact, low)]  # type: ignore[arg-type]
    for a, b in zip(*gradients, strict=True):
        assert b.dtype == torch.float32 and b.isfinite().all()
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.95
    assert all(p.dtype == torch.float32 for p in parameters)


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("unknown", [None, OTHERS])
def test_ogen_plugs_in(world, name: str, unknown: Any) -> None:
    host = made(name, world)
    model = OGEN(host, unknown=unknown, **SMALL)
    assert not model.uses_cached_features
    model.prepare(frozen_bank(world), epochs=2, seed=1)
    for epoch in (1, 2):
        terms = model.losses(batch(world))
        assert host.losses(batch(world)).keys() < terms.keys()
        assert all(t.ndim == 0 and t.isfinite() for t in terms.values())
        for p in model.trainable().values():
            p.grad = None
        sum(terms.values()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in host.trainable().values())
        model.on_epoch_end(epoch, 2)
    state = model.training_state()
    again = OGEN(made(name, world), unknown=unknown, **SMALL)
    again.prepare(frozen_bank(world), epochs=2, seed=1)
    again.load_training_state(state)


@pytest.mark.parametrize("name", PROMPTED)
def test_ogen_distils_the_model_without_prompts(world, name: str) -> None:
    off = {"generator": None, "zero_shot_share": 0.0, "synthesized_kl": 0.0, "teacher": None}
    model = OGEN(made(name, world), templates="a {}.", zero_shot_kl=2.0, **off)
    terms = model.losses(batch(world))
    p = (
        world.logit_scale
        * world.encode_image(pixels(world))
        @ world.encode_text([f"a {n.replace('_', ' ')}." for n in NAMES]).T
    ).softmax(-1)
    z, w = model.image_features(batch(world)), model.class_weights()
    q = (world.logit_scale * z @ w.T).softmax(-1)
    expected = 2.0 * (p * (p / q).log()).sum(-1).mean().item()
    assert terms["zero_shot_kl_real"].item() == pytest.approx(expected, rel=1e-4) and expected > 1e-3


@pytest.mark.parametrize("name", PROMPTED)
def test_depth_is_clipped_to_the_towers_but_never_silently_what_was_asked(name: str) -> None:
    shallow = make_clip({"layers": 2}, {"layers": 1})
    most = 2 if name == "vpt" else 1  # visual prompts alone ask nothing of the text tower
    assert build(name, shallow, NAMES).depth == most
    with pytest.raises(ValueError, match=f"depth={most + 1}: must be 1 to {most}, the layers of"):
        build(name, shallow, NAMES, depth=most + 1)
    with pytest.raises(ValueError, match="depth=0"):
        build(name, shallow, NAMES, depth=0)
    moved(build(name, shallow, NAMES)).losses(batch(shallow))


def test_usable_depth() -> None:
    assert usable_depth(None, 9, 12, "x") == 9 and usable_depth(None, 9, 3, "x") == 3
    assert usable_depth(12, 9, 12, "x") == 12
    with pytest.raises(ValueError, match="must be 1 to 3, the layers of the text tower; None takes 3"):
        usable_depth(4, 9, 3, "the text tower")


@pytest.mark.parametrize("name", PROMPTED)
def test_shallow_prompts_stand_in_the_first_layer_only(world, name: str) -> None:
    host = made(name, world, depth=1)
    assert host.visual_prompts().shape[0] == 1 and host.depth == 1
    assert name == "vpt" or (host.deep_context is None and host.text_prompts().shape[0] == 1)
    sum(host.losses(batch(world)).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in host.trainable().values())


@pytest.mark.parametrize("name", [n for n in PROMPTED if n != "vpt"])
def test_the_first_text_tokens_are_the_first_words(world, name: str) -> None:
    words = world.text.embed(world.text.tokenize(["a photo of a"]))[0, 1:5]
    host = build(name, world, NAMES, n_context=3)
    torch.testing.assert_close(host.context.detach(), words[:3])
    assert host.text_prompts()[1:].std().item() == pytest.approx(0.02, rel=0.3)
    few = build(name, world, NAMES, context="the")
    torch.testing.assert_close(few.context.detach(), world.text.embed(world.text.tokenize(["the"]))[0, 1:2])
    random = build(name, world, NAMES, context=None)
    assert random.context.std().item() == pytest.approx(0.02, rel=0.5)
    assert random.n_context == build(name, world, NAMES).n_context
    assert method(name).dataset_options(["an icon of a {}."])["context"] == "an icon of a"
    assert random.reference_templates() and build(name, world, NAMES).reference_templates() == ("a photo of a {}.",)


@pytest.mark.parametrize("name", [n for n in PROMPTED if n != "vpt"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_context": 5}, "n_context=5, but context 'a photo of a' is only 4 tokens long"),
        ({"n_context": 0}, "n_context=0: at least one token"),
        ({"context": None, "n_context": 14}, r"red_apple|dog"),
        ({"context": " "}, "hold no token"),
    ],
)
def test_bad_text_prompts_are_refused(world, name: str, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(name, world, NAMES, **options)


@pytest.mark.parametrize("name", PROMPTED)
def test_models_that_cannot_take_the_prompts_are_refused_by_name(name: str) -> None:
    resnet = make_clip({"layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "image_size": 32, "head_width": 8})
    with pytest.raises(ValueError, match=r"ModifiedResNet has no place for extra tokens.*ViT-B-16"):
        build(name, resnet, NAMES)
    with pytest.raises(ValueError, match="no image tower"):
        build(name, EmbeddingTable(NAMES, torch.eye(3, 8)), NAMES)


@pytest.mark.parametrize("name", [n for n in PROMPTED if n != "vpt"])
def test_text_towers_without_deep_prompts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip()
    monkeypatch.setattr(clip.text, "supports_deep_prompts", False)
    with pytest.raises(ValueError, match=r"NativeTextTower has no deep prompts: pass depth=1"):
        build(name, clip, NAMES)
    assert build(name, clip, NAMES, depth=1).depth == 1


TOWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "pooled-last": ({"no_ln_pre": True}, {"pool_type": "last"}),
    "both-ways": ({"final_ln_after_pool": True}, {"no_causal_mask": True}),
    "layer-scale": ({"ls_init_value": 0.5}, {"ls_init_value": 0.5}),
    "custom-blocks": ({"block_type": "custom", "patch_dropout": 0.5}, {"block_type": "custom"}),
}


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    # open_clip itself cannot run its layer scales in half precision
    [(k, d) for k in TOWERS for d in (torch.float32, torch.bfloat16) if (k, d) != ("layer-scale", torch.bfloat16)],
)
def test_every_host_on_every_kind_of_tower(name: str, kind: str, dtype: torch.dtype) -> None:
    try:
        clip = make_clip(*TOWERS[kind], dtype=dtype)
    except TypeError:
        pytest.skip(f"this open_clip builds no towers with {TOWERS[kind]}")
    assert clip.image.dtype == dtype and clip.text.can_share_prefix == (kind != "both-ways")
    host = made(name, clip)
    terms = host.losses(batch(clip))
    sum(terms.values()).backward()
    for p in host.trainable().values():
        assert p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all() and p.grad.abs().sum() > 0
    if dtype == torch.bfloat16:
        exact = made(name, make_clip(*TOWERS[kind])).losses(batch(clip))
        assert all(terms[k].item() == pytest.approx(exact[k].item(), rel=0.1, abs=0.05) for k in exact)
    elif name != "vpt":
        expected = text_rows(clip, NAMES, host.text_prompts())
        torch.testing.assert_close(host.class_weights(), expected, atol=1e-5, rtol=0)
    for p in host.trainable().values():
        p.grad = None


@pytest.mark.parametrize("name", PROMPTED)
def test_the_learning_rate_knows_the_size_of_the_words(world, name: str) -> None:
    lr = method(name).published["lr"]  # type: ignore[attr-defined]
    host = build(name, world, ["dog"])
    token = world.text.embed(world.text.tokenize(["dog"]))[0, 1].square().mean().sqrt().item()
    expected = lr if name == "vpt" else lr * token / 0.02
    assert host.train_settings() == {"lr": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("name", PROMPTED)
def test_published_settings_are_the_presets(name: str) -> None:
    deep = make_clip({"layers": 13}, {"layers": 13})
    host = method(name).paper(deep, NAMES)  # type: ignore[attr-defined]
    expected = {
        "vpt": (12, 8, 2.5e-3, 5),
        "ivlp": (12, 2, 3.5e-3, 5),
        "maple": (9, 2, 3.5e-3, 5),
        "promptsrc": (9, 4, 2.5e-3, 20),
    }
    depth, tokens, lr, epochs = expected[name]
    assert host.visual_prompts().shape == (depth, tokens, 24)
    assert name == "vpt" or host.text_prompts().shape == (depth, tokens, 16)
    assert host.train_settings() == {"lr": lr, "optimizer": "sgd", "epochs": epochs, "batch_size": 4}
    assert host.config()["paper_training"] is True
    own = build(name, deep, NAMES).train_settings()
    assert set(own) == {"lr"} and own["lr"] > 0


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
@pytest.mark.parametrize("name", PROMPTED)
def test_tensors_follow_the_model(name: str, device: str) -> None:
    clip = new_clip(VISION, TEXT).to(device)
    host = made(name, clip)
    assert all(p.device.type == device for p in host.parameters())
    given = batch(clip)
    given.labels = given.labels.to(device)
    assert sum(host.losses(given).values()).device.type == device

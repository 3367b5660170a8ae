"""R-Adapter: its ensembles, its loss and its classes against the formulas, and the plain model it becomes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from adapted_world import shake, unmerged
from pixel_world import KNOWN, NEW, pictures
from prompted_world import NAMES, OTHERS, TEXT, VISION, batch, make_clip, new_clip, pixels

import ogenlib as og
from ogenlib.data import PixelBank
from ogenlib.hosts import Batch, Host, RAdapter
from ogenlib.hosts.parts.mpm_nce import mpm_nce
from ogenlib.hosts.parts.residual_adapters import image_blocks, text_blocks
from ogenlib.hosts.r_adapter import Accumulation
from ogenlib.hosts.zero_shot import zero_shot_weights
from ogenlib.ogen.wrapper import OGEN
from ogenlib.runs.saved import load_run
from ogenlib.towers import Backbone, weights_hash
from ogenlib.towers.replaced import call_replaced
from ogenlib.towers.text import encode_ids
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit
from ogenlib.train.param_groups import layer_decay

TEMPLATES = ("a photo of a {}.", "an icon of a {}.")
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 6, "lr": 0.01, "warmup_epochs": 0}
SMALL: dict[str, Any] = {"k": 2, "iterations": 3, "rows": 4, "per_class": 4}


@pytest.fixture(scope="module")
def world() -> Any:
    return make_clip()


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return PixelBank.load(clip, pictures(), views=2, seed=1)


def adapted(clip: Any, **options: Any) -> RAdapter:
    return shake(RAdapter(clip, NAMES, **options))


def rows(clip: Any, host: RAdapter, run: Any) -> torch.Tensor:
    """What `run` gives where the host's adapters are modules of their own in both towers, scaled."""
    both = [(image_blocks(clip), host.visual), (text_blocks(clip), host.text)]
    matrices = [[host.scale * a.matrix() for a in tower.adapters()] for _, tower in both]
    with unmerged(both[0][0], matrices[0]), unmerged(both[1][0], matrices[1]):
        return run()


# --- what it computes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("templates", [TEMPLATES, TEMPLATES[:1]])
def test_it_starts_as_zero_shot(world, templates: tuple[str, ...]) -> None:
    host = RAdapter(world, NAMES, templates)
    for names in (NAMES, OTHERS):
        expected = zero_shot_weights(world, names, templates)
        torch.testing.assert_close(host.class_weights(names), expected, atol=1e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(host.image_features(batch(world)), world.encode_image(batch(world).pixels))


@pytest.mark.parametrize("rank", [None, 3])
def test_both_sides_are_those_of_adapters_in_the_towers(world, rank: int | None) -> None:
    host = adapted(world, rank=rank, templates=TEMPLATES).rescale(0.6).eval()
    images = batch(world)
    z = rows(world, host, lambda: world.encode_image(images.pixels))
    torch.testing.assert_close(host.image_features(images), z, atol=1e-5, rtol=0)
    for names in (NAMES, OTHERS):
        w = rows(world, host, lambda names=names: zero_shot_weights(world, names, TEMPLATES))
        torch.testing.assert_close(host.class_weights(names), w, atol=1e-5, rtol=0)
    torch.testing.assert_close(host.frozen_features(images), world.encode_image(images.pixels))
    assert (z - host.frozen_features(images)).abs().max() > 0.05


def test_the_merged_tensors_are_a_plain_open_clip_model(world) -> None:
    host = adapted(world).rescale(0.5).eval()
    model = deepcopy(world.model)
    state = model.state_dict()
    assert not host.merged()["visual.transformer.resblocks.0.mlp.c_proj.weight"].requires_grad
    model.load_state_dict({**state, **host.merged()})
    plain = Backbone(model, world.tokenizer, name="merged")
    images = batch(world)
    torch.testing.assert_close(plain.encode_image(images.pixels), host.image_features(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        zero_shot_weights(plain, OTHERS, host.anchor.templates), host.class_weights(OTHERS), atol=1e-5, rtol=0
    )
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in world.model.parameters())


def test_the_export_opens_without_this_library(clip, tmp_path: Path) -> None:
    host = shake(RAdapter(clip, ["dog", "red apple"], "an icon of a {}."), 0.03).rescale(0.5).eval()
    folder = og.export_open_clip(host, tmp_path / "out")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    images, texts = pixels(clip, 2), ["an icon of a fox.", "an icon of a bus."]
    with torch.no_grad():
        z, w = model.encode_image(images, normalize=True), model.encode_text(clip.tokenizer(texts), normalize=True)
        got = host.image_features(Batch(torch.zeros(2).long(), pixels=images))
        torch.testing.assert_close(z, got, atol=1e-4, rtol=0)
        torch.testing.assert_close(w, host.class_weights(["fox", "bus"]), atol=1e-4, rtol=0)
    assert (z - clip.encode_image(images)).abs().max() > 0.02


# --- the three ensembles ----------------------------------------------------------------------------------


def test_dropping_is_one_draw_for_each_adapter_of_a_training_step(world) -> None:
    host, images = adapted(world, drop=0.4), batch(world, seed=3)
    kept = torch.rand(8, generator=torch.Generator().manual_seed(3)) >= 0.4
    assert kept.any() and not kept.all()
    tensors = host.visual.merged(1.0, kept / 0.6)
    expected = call_replaced(world.model, tensors, world.encode_image, images.pixels)
    torch.testing.assert_close(host.image_features(images), expected, atol=1e-6, rtol=0)
    whole = host.image_features(replace(images, generator=None))
    assert (whole - expected).abs().max() > 0.02
    with torch.no_grad():  # a teacher's pass
        torch.testing.assert_close(host.image_features(images), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(host.eval().image_features(images), whole, atol=1e-6, rtol=0)
    assert torch.equal(adapted(world, drop=0.0).image_features(images), whole)


def test_text_adapters_are_dropped_too(world) -> None:
    host = adapted(world, drop=0.5)
    losses = {
        float(
            host.losses(
                Batch(torch.arange(3), pixels=pixels(world, 3), generator=draws),
                z=F.normalize(torch.eye(3, world.embed_dim), dim=-1),
            )["mpm_nce"].detach()
        )
        for draws in map(torch.Generator().manual_seed, range(3))
    }
    assert len(losses) == 3


def test_accumulation_is_the_recursion_over_steps() -> None:
    for early in (False, True):
        p = torch.nn.Parameter(torch.zeros(2))
        average, by_hand = Accumulation({"p": p}, 0.9, early), 0.0
        for t in range(1, 120):
            with torch.no_grad():
                p.fill_(float(t))
            average.update(t)
            decay = min(0.9, (1 + t) / (10 + t)) if early else 0.9
            by_hand = decay * by_hand + (1 - decay) * t
        assert average.state()["p"].tolist() == pytest.approx([by_hand] * 2, rel=1e-5)
        with pytest.raises(ValueError, match="other settings"):
            Accumulation({"p": p}, 0.9, not early).load_state_dict(average.state_dict())


def test_training_ends_with_the_accumulated_adapters_rescaled(clip, bank) -> None:
    plain = RAdapter(clip, KNOWN, accumulation=0.0, alpha=1.0)
    host = RAdapter(clip, KNOWN, accumulation=0.7, early=False, alpha=0.4)
    fit(plain, bank, **QUICK)
    seen: list[dict[str, torch.Tensor]] = []

    def watch(of: Host, epoch: int) -> dict[str, float]:
        seen.append({n: p.detach().clone() for n, p in of.trainable().items()})
        return {"scale": float(of.scale)}

    steps: list[dict[str, torch.Tensor]] = []
    own = host.on_step_end
    host.on_step_end = lambda: (own(), steps.append({n: p.detach().clone() for n, p in host.trainable().items()}))  # type: ignore[method-assign, func-returns-value, assignment]
    history = fit(host, bank, measure=watch, **QUICK)
    assert history.column("scale") == pytest.approx([1.0, 0.4]) and float(host.scale) == pytest.approx(0.4)
    for name, p in host.trainable().items():
        average = torch.zeros_like(p)
        for step in steps:
            average = 0.7 * average + 0.3 * step[name]
        torch.testing.assert_close(p.detach(), average, atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(steps[-1][name], plain.trainable()[name].detach(), atol=1e-7, rtol=1e-4)
    assert torch.equal(seen[0]["visual.resblocks.0.mlp.weight"], steps[1]["visual.resblocks.0.mlp.weight"])
    assert replace(TrainConfig(), **host.train_settings()).lr == 5e-4 and host.train_settings()["weight_decay"] == 0.0
    before = host.class_weights().detach()
    assert host.losses(batch_of(bank))["mpm_nce"].isfinite() and torch.equal(host.class_weights(), before)
    fit(host, bank, **{**QUICK, "epochs": 1, "lr": 1e-9})  # goes on from what there is, and is not re-scaled twice
    torch.testing.assert_close(host.class_weights(), before, atol=1e-4, rtol=0)


def batch_of(bank: PixelBank, n: int = 6) -> Batch:
    draws = torch.Generator().manual_seed(0)
    return Batch(bank.labels[:n], pixels=bank.view(torch.arange(n), draws), generator=draws)


def test_rescaling_is_weight_interpolation(world) -> None:
    host = adapted(world)
    full, half = host.rescale(1.0).merged(), host.rescale(0.25).merged()
    for name, own in world.model.state_dict().items():
        if name in full:
            torch.testing.assert_close(half[name], 0.25 * full[name] + 0.75 * own, atol=1e-6, rtol=0)
    zero = host.rescale(0.0).merged()
    assert all(torch.equal(zero[n], world.model.state_dict()[n]) for n in zero) and host.config()["alpha"] == 0.0


# --- the loss ---------------------------------------------------------------------------------------------


def test_losses_are_mpm_nce_on_a_text_an_image(world) -> None:
    host = adapted(world, templates=TEMPLATES, smoothing=0.2, margin=0.1, temperature=0.05).eval()
    images = batch(world, 9)
    ids = host.pool.draw(batch(world, 9))
    assert len(ids.unique(dim=0)) > len(images.labels.unique())
    g = rows(world, host, lambda: F.normalize(encode_ids(world.text, ids), dim=-1))
    f = rows(world, host, lambda: world.encode_image(images.pixels))
    same = images.labels[:, None] == images.labels
    expected = mpm_nce(f, g, same, temperature=0.05, margin=0.1, smoothing=0.2)
    torch.testing.assert_close(host.losses(images)["mpm_nce"], expected, atol=1e-4, rtol=1e-4)


def test_losses_take_what_the_caller_has_computed(world) -> None:
    host, images = adapted(world, temperature=None).eval(), batch(world)
    own = host.losses(images)["mpm_nce"]
    z, w = host.image_features(images), host.class_weights()
    torch.testing.assert_close(host.losses(images, z=z, w=w)["mpm_nce"], own, atol=1e-5, rtol=0)
    assert host.losses(images, z=z.roll(1, 0), w=w)["mpm_nce"] != own != host.losses(images, z=z, w=w.roll(1, 0))
    at_hand = mpm_nce(
        z,
        w[images.labels],
        images.labels[:, None] == images.labels,
        temperature=1 / world.logit_scale,
        margin=0.05,
        smoothing=0.1,
    )
    torch.testing.assert_close(own, at_hand, atol=1e-5, rtol=0)
    several, plain = adapted(world, templates=TEMPLATES).eval(), batch(world)
    moved = several.losses(plain, w=w.roll(1, 0))["mpm_nce"]  # not the text that was drawn
    torch.testing.assert_close(moved, several.losses(batch(world))["mpm_nce"], atol=1e-6, rtol=0)


def test_retrieval_is_one_class_an_image(world) -> None:
    captions = {"7.png": ["a dog runs", "a brown dog"], "9.png": ["a bus"], "3.png": ["a bus"]}
    host = shake(RAdapter(world, list(captions), texts=captions)).eval()
    images = Batch(torch.arange(3), pixels=pixels(world, 3), generator=torch.Generator().manual_seed(0))
    ids = host.pool.draw(replace(images, generator=torch.Generator().manual_seed(0)))
    (drawn,) = (text for text in captions["7.png"] if torch.equal(world.text.tokenize(text)[0], ids[0]))
    texts = [drawn, "a bus", "a bus"]
    positive = torch.tensor([[True, False, False], [False, True, True], [False, True, True]])  # one text, two images
    f, g = rows(world, host, lambda: (world.encode_image(images.pixels), world.encode_text(texts)))
    expected = mpm_nce(f, g, positive, temperature=1 / world.logit_scale, margin=0.05, smoothing=0.1)
    torch.testing.assert_close(host.losses(images)["mpm_nce"], expected, atol=1e-4, rtol=1e-4)
    mean = rows(world, host, lambda: world.encode_text(captions["7.png"])).mean(0)
    torch.testing.assert_close(host.class_weights(["7.png"])[0], F.normalize(mean, dim=0), atol=1e-5, rtol=0)
    fox = rows(world, host, lambda: zero_shot_weights(world, ["fox"], host.anchor.templates))
    torch.testing.assert_close(host.class_weights(["7.png", "fox"])[1:], fox, atol=1e-5, rtol=0)
    assert host.config()["texts"] == captions


# --- training ---------------------------------------------------------------------------------------------


def test_training_learns_and_leaves_the_model_alone(clip, bank) -> None:
    hashed, host = clip.weights_hash, RAdapter(clip, KNOWN, alpha=1.0, generator=torch.Generator().manual_seed(5))
    history = fit(host, bank, epochs=3, batch_size=6, lr=3e-4, warmup_epochs=0)
    assert history.column("mpm_nce")[-1] < history.column("mpm_nce")[0]
    assert weights_hash(clip.model) == hashed and all(p.grad is None for p in clip.model.parameters())
    with torch.no_grad():
        images = replace(batch_of(bank, 12), generator=None)
        own = F.cross_entropy(host.logits(host.image_features(images), host.class_weights()), images.labels)
        frozen = F.cross_entropy(host.logits(host.frozen_features(images), host.anchor(KNOWN)), images.labels)
    assert own < frozen


@pytest.mark.parametrize("rank", [None, 4])
def test_stopped_and_continued_is_bit_identical(clip, bank, tmp_path: Path, rank: int | None) -> None:
    class Stop(Exception):
        pass

    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 1:
            raise Stop
        return {}

    whole, parts, again = (RAdapter(clip, KNOWN, TEMPLATES, rank=rank) for _ in range(3))
    fit(whole, bank, **QUICK)
    with pytest.raises(Stop):
        fit(parts, bank, out=tmp_path, measure=stop, **QUICK)
    # The checkpoint of an epoch is written after what is measured in it; the first epoch runs anew.
    fit(again, bank, out=tmp_path, **QUICK)
    third = RAdapter(clip, KNOWN, TEMPLATES, rank=rank)
    fit(third, bank, out=tmp_path, **QUICK)  # finished already
    for other in (again, third):
        assert all(torch.equal(p, other.state_dict()[n]) for n, p in whole.state_dict().items())
    whole.save(tmp_path / "run")
    loaded = load_run(tmp_path / "run", clip=clip)
    assert loaded.config() == whole.config() and float(loaded.scale) == 0.5
    assert torch.equal(loaded.class_weights(["fox"]), whole.class_weights(["fox"]))


def test_recomputed_activations_give_the_same_steps(clip, bank, monkeypatch) -> None:
    """Both with the adapters in the layers: beside them, steps differ by rounding, which Adam makes larger."""
    monkeypatch.setattr("ogenlib.hosts.r_adapter.recomputes", lambda model: True)
    plain, recomputed = RAdapter(clip, KNOWN, TEMPLATES), RAdapter(clip, KNOWN, TEMPLATES)
    fit(plain, bank, **{**QUICK, "lr": 1e-3})
    fit(recomputed, bank, grad_checkpointing=True, **{**QUICK, "lr": 1e-3})
    for name, p in plain.trainable().items():
        torch.testing.assert_close(recomputed.trainable()[name], p, atol=1e-6, rtol=0)
    assert "forward" not in vars(clip.model.visual.transformer.resblocks[0])


def test_gradients_are_those_of_recomputed_activations() -> None:
    world = new_clip(VISION, TEXT)
    host, parameters = adapted(world, drop=0.4), []
    for recomputed in (False, True):
        world.model.set_grad_checkpointing(recomputed)
        sum(host.losses(batch(world, seed=3)).values()).backward()
        parameters.append([p.grad for p in host.parameters()])
        host.zero_grad()
    for beside, melted in zip(*parameters, strict=True):
        torch.testing.assert_close(beside, melted, atol=1e-6, rtol=1e-3)
    assert sum(bool(g.abs().max() > 1e-5) for g in parameters[0]) > 4  # those that are not dropped


def test_rates_by_block_freeze_and_slow_adapters(clip, bank) -> None:
    host = RAdapter(clip, KNOWN, drop=0.0)
    names = [n for n in host.trainable() if n.startswith("visual")]
    rates = (("^text", 0.0), *layer_decay(names, 0.5))
    fit(host, bank, rates=rates, **{**QUICK, "epochs": 1, "batch_size": 12})  # one step: Adam moves by the rate
    moved = {n: float(p.detach().abs().max()) for n, p in host.trainable().items()}
    assert all(moved[n] == 0 for n in moved if n.startswith("text"))
    ends = [moved[f"visual.resblocks.{i}.mlp.weight"] for i in (0, 1, 5)]
    assert ends == pytest.approx([ends[2] / 32, ends[2] / 16, ends[2]], rel=1e-3) and ends[2] > 0


def test_low_precision_steps_keep_fp32_adapters(clip, bank) -> None:
    plain, low = RAdapter(clip, KNOWN, drop=0.0), RAdapter(clip, KNOWN, drop=0.0)
    fit(plain, bank, epochs=1, batch_size=12, lr=1e-3, warmup_epochs=0)
    fit(low, bank, epochs=1, batch_size=12, lr=1e-3, warmup_epochs=0, precision="bf16")
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in low.trainable().values())
    name = "text.resblocks.1.mlp.weight"
    close = F.cosine_similarity(plain.trainable()[name].flatten(), low.trainable()[name].flatten(), dim=0)
    assert 0.5 < close < 1


@pytest.mark.parametrize("settings", [{"teacher": "almt"}, {"zero_shot_share": 0.5}, {"teacher": "ema"}])
def test_ogen_trains_it(clip, bank, settings: dict[str, Any]) -> None:
    model = OGEN(RAdapter(clip, KNOWN), unknown=NEW, **SMALL, **settings)
    history = fit(model, bank, **{**QUICK, "epochs": 3})
    assert {"mpm_nce", "zero_shot_kl_real", "synthesized_ce", "teacher"} <= set(history.epochs[-1])
    bare = RAdapter(clip, KNOWN)
    fit(bare, bank, **{**QUICK, "epochs": 3})
    assert any(not torch.equal(p, bare.trainable()[n]) for n, p in model.host.trainable().items())
    images = replace(batch_of(bank), generator=None)
    with torch.no_grad():
        z = model.image_features(images)
        assert torch.isfinite(model.logits(z, model.class_weights((*KNOWN, *NEW), z=z))).all()

"""PromptSRC: every loss term written out, and the average over epochs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from prompted_world import NAMES, batch, frozen_bank, image_rows, made, make_clip, pixels, steps, text_rows  # fmt: skip

from ogenlib.hosts import IVLP, Batch, PromptSRC, ZeroShot

TEMPLATES = ["a {}.", "the {} here"]


@pytest.fixture(scope="module")
def world():
    return make_clip()


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_every_term_by_hand(world) -> None:
    host = made("promptsrc", world, templates=TEMPLATES)
    terms = host.losses(batch(world))
    assert set(terms) == {"ce", "text", "image", "logits"}
    z = image_rows(world, pixels(world), host.visual).tolist()
    w = text_rows(world, NAMES, host.text_prompts()).tolist()
    f = world.encode_image(pixels(world)).tolist()
    sentences = [[t.format(n.replace("_", " ")) for t in TEMPLATES] for n in NAMES]
    t = []
    for of_class in sentences:  # the mean of unit rows, made a unit row again
        mean = torch.stack([world.encode_text([s])[0] for s in of_class]).mean(0)
        t.append((mean / mean.norm()).tolist())
    scale, B, C, D = world.logit_scale.item(), 5, 3, 10

    text = 25 * sum(abs(a - b) for i in range(C) for a, b in zip(w[i], t[i], strict=True)) / (C * D)
    image = 10 * sum(abs(a - b) for i in range(B) for a, b in zip(z[i], f[i], strict=True)) / (B * D)
    ce = kl = 0.0
    for i in range(B):
        q = softmax([scale * dot(z[i], row) for row in w])
        p = softmax([scale * dot(f[i], row) for row in t])
        ce -= math.log(q[i % C]) / B
        kl += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / (B * C)
    for name, expected in {"ce": ce, "text": text, "image": image, "logits": kl}.items():
        assert terms[name].item() == pytest.approx(expected, rel=1e-4) and expected > 1e-3, name


def test_the_frozen_side_has_no_gradient_and_no_second_model(world) -> None:
    host = made("promptsrc", world)
    assert set(host.trainable()) == {"context", "deep_context", "visual"} == set(host.state_dict())
    runs: list[Any] = []
    hook = world.model.visual.conv1.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    terms = host.losses(batch(world))
    assert runs == [True, False]  # prompted, then frozen, through one tower
    parameters = (host.context, host.visual)
    for name, reaches in {"text": (True, False), "image": (False, True), "logits": (True, True)}.items():
        found = torch.autograd.grad(terms[name], parameters, allow_unused=True, retain_graph=True)
        assert tuple(g is not None and bool(g.abs().sum() > 0) for g in found) == reaches
    given = batch(world)
    given.features = world.encode_image(pixels(world))
    runs.clear()
    again = host.losses(given)
    hook.remove()
    assert runs == [True]  # the batch brought the frozen features of the same pictures
    for k in terms:
        torch.testing.assert_close(again[k], terms[k], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("off", ["text_weight", "image_weight", "logit_weight"])
def test_weights_scale_their_terms_and_zero_leaves_them_out(world, off: str) -> None:
    usual = made("promptsrc", world).losses(batch(world))
    name = {"text_weight": "text", "image_weight": "image", "logit_weight": "logits"}[off]
    assert set(made("promptsrc", world, **{off: 0}).losses(batch(world))) == set(usual) - {name}
    doubled = made("promptsrc", world, **{off: 2 * {"text": 25, "image": 10, "logits": 1}[name]}).losses(batch(world))
    assert doubled[name].item() == pytest.approx(2 * usual[name].item(), rel=1e-6)


def test_all_weights_zero_is_ivlp(world) -> None:
    zero = {"text_weight": 0, "image_weight": 0, "logit_weight": 0, "average": False}
    host, ivlp = PromptSRC(world, NAMES, **zero), IVLP(world, NAMES, n_context=4, n_visual=4)
    assert steps(host, 3) == steps(ivlp, 3)
    assert torch.equal(host.visual, ivlp.visual) and torch.equal(host.context, ivlp.context)


def test_a_model_that_is_the_frozen_one_pays_nothing(world) -> None:
    """With the frozen features in place of the prompted ones, all three terms vanish."""
    host = made("promptsrc", world, templates=TEMPLATES)
    z, w = world.encode_image(pixels(world)), ZeroShot(world, NAMES, TEMPLATES).class_weights()
    terms = host.losses(batch(world), z=z, w=w)
    assert all(terms[k].item() == pytest.approx(0, abs=1e-6) for k in ("text", "image", "logits"))
    assert terms["ce"] > 0.1


def epochs(host: PromptSRC, first: int, last: int, total: int, seen: list[dict[str, torch.Tensor]]) -> None:
    for epoch in range(first, last + 1):
        steps(host, 1, seed=epoch)
        seen.append({k: p.detach().clone() for k, p in host.trainable().items()})
        host.on_epoch_end(epoch, total)


@pytest.mark.parametrize(("mu", "sigma"), [(None, None), (2.0, 1.5)])
def test_the_end_is_the_weighted_mean_of_the_epochs(world, mu: float | None, sigma: float | None) -> None:
    host = made("promptsrc", world, mu=mu, sigma=sigma)
    host.prepare(frozen_bank(world), 4, 1)
    seen: list[dict[str, torch.Tensor]] = []
    epochs(host, 1, 4, 4, seen)
    centre, width = mu or 3.0, sigma or 0.2
    weights = [math.exp(-(((t - centre) / width) ** 2) / 2) for t in (1, 2, 3, 4)]
    for name, p in host.trainable().items():
        expected = sum(a * s[name] for a, s in zip(weights, seen, strict=True)) / sum(weights)
        torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(p, seen[-1][name], atol=1e-4)


def test_before_the_last_epoch_training_goes_on_from_its_own_prompts(world) -> None:
    host, plain = made("promptsrc", world), made("promptsrc", world, average=False)
    for h in (host, plain):
        h.prepare(frozen_bank(world), 4, 1)
        epochs(h, 1, 3, 4, [])
    assert all(torch.equal(a, b) for a, b in zip(host.parameters(), plain.parameters(), strict=True))
    assert plain.training_state() == {}
    epochs(plain, 4, 4, 4, kept := [])
    assert torch.equal(plain.visual, kept[0]["visual"])


def test_a_killed_training_ends_where_it_would_have(world) -> None:
    through = made("promptsrc", world, sigma=2.0)
    through.prepare(frozen_bank(world), 4, 1)
    epochs(through, 1, 2, 4, [])
    tensors = {k: v.clone() for k, v in through.state_dict().items()}
    state = {
        "average": {
            k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in through.training_state()["average"].items()
        }
    }
    epochs(through, 3, 4, 4, [])
    again = PromptSRC(world, NAMES, sigma=2.0)
    again.prepare(frozen_bank(world), 4, 1)
    again.load_state_dict(tensors)
    again.load_training_state(state)
    epochs(again, 3, 4, 4, [])
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), again.parameters(), strict=True))


def test_presets_and_options(world) -> None:
    paper = PromptSRC.paper(world, NAMES)
    assert len(paper.anchor.templates) == 80 and "a photo of a {}." in paper.anchor.templates
    assert (paper.text_weight, paper.image_weight, paper.logit_weight, paper.average) == (25, 10, 1, True)
    assert (paper.n_context, paper.visual.shape[1]) == (4, 4)
    options = PromptSRC.dataset_options(TEMPLATES)
    assert options == {"context": "a", "templates": TEMPLATES}
    host = PromptSRC(world, NAMES, **options)
    assert host.n_context == 1 and host.reference_templates() == tuple(TEMPLATES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_weight": -1.0}, r"text_weight=-1\.0: must be 0 or more"),
        ({"image_weight": math.nan}, "image_weight=nan"),
        ({"logit_weight": math.inf}, "logit_weight=inf"),
        ({"sigma": 0.0}, r"sigma=0\.0: must be a positive number of epochs"),
        ({"mu": math.nan}, "mu=nan"),
        ({"templates": "no slot"}, "must each hold"),
    ],
)
def test_bad_options_are_refused(world, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PromptSRC(world, NAMES, **options)


def test_features_without_pixels_are_refused_before_any_term(world) -> None:
    features = world.encode_image(pixels(world))
    with pytest.raises(ValueError, match="PixelBank"):
        PromptSRC(world, NAMES).losses(Batch(torch.zeros(5, dtype=torch.long), features=features))

"""CoCoOp: its contexts, its weights against prompts encoded one by one, and chunks of images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ogenlib.hosts import Batch, CoCoOp, CoOp
from ogenlib.runs.saved import load_run
from ogenlib.towers import encode_prompts, prompt_tokens

NAMES = ["dog", "red_apple", "train"]


def images(clip, n: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(n, clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)


def by_hand(host: CoCoOp, z: torch.Tensor, names: list[str]) -> torch.Tensor:
    """One image at a time, every prompt whole, as the paper writes it."""
    rows = []
    for x in z:
        hidden = (host.down.weight @ x + host.down.bias).clamp_min(0)
        context = host.context + (host.up.weight @ hidden + host.up.bias)
        tokens = prompt_tokens(host.clip.text, names, host.n_context)
        rows.append(F.normalize(encode_prompts(host.clip.text, tokens, context, path="plain"), dim=-1))
    return torch.stack(rows)


@pytest.mark.parametrize("image_chunk", [None, 1, 2])
def test_weights_and_gradients_are_those_of_one_image_at_a_time(clip, image_chunk) -> None:
    host, z = CoCoOp(clip, NAMES, "an icon of a", image_chunk=image_chunk), images(clip)
    got, expected = host.class_weights(z=z), by_hand(host, z, NAMES)
    assert got.shape == (5, 3, clip.embed_dim)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert (got[0] - got[1]).abs().max() > 1e-3  # the image does matter
    direction = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(host.parameters())
    for a, b in zip(
        torch.autograd.grad((got * direction).sum(), parameters),
        torch.autograd.grad((expected * direction).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_many_prompts_are_encoded_a_few_images_at_a_time(clip, monkeypatch) -> None:
    host, z = CoCoOp(clip, NAMES, "an icon of a"), images(clip)
    whole = host.class_weights(z=z)
    seen: list[int] = []
    weigh = CoCoOp._weights
    monkeypatch.setattr(
        CoCoOp, "_weights", lambda self, part, tokens: seen.append(len(part)) or weigh(self, part, tokens)
    )
    monkeypatch.setattr("ogenlib.hosts.cocoop.MAX_PROMPTS", 7)
    with torch.no_grad():
        torch.testing.assert_close(host.class_weights(z=z), whole, atol=1e-6, rtol=0)
    assert seen == [2, 2, 1]


def test_without_its_shift_it_is_coop(clip) -> None:
    host, coop, z = CoCoOp(clip, NAMES, "an icon of a"), CoOp(clip, NAMES, "an icon of a"), images(clip)
    with torch.no_grad():
        host.up.weight.zero_()
        host.up.bias.zero_()
    for weights in (host.class_weights(), *host.class_weights(z=z)):
        torch.testing.assert_close(weights, coop.class_weights(), atol=1e-5, rtol=0)
    batch = Batch(torch.tensor([0, 1, 2, 0, 1]), features=z)
    torch.testing.assert_close(host.losses(batch)["ce"], coop.losses(batch)["ce"], atol=1e-4, rtol=1e-5)


def test_the_loss_takes_each_image_against_its_own_weights(clip) -> None:
    host, z, labels = CoCoOp(clip, NAMES, "an icon of a"), images(clip), torch.tensor([0, 1, 2, 0, 1])
    scale, expected = clip.logit_scale.item(), 0.0
    for x, w, label in zip(z, by_hand(host, z, NAMES), labels.tolist(), strict=True):
        scores = [scale * float(x @ row) for row in w.detach()]
        top = max(scores)
        expected += top + math.log(sum(math.exp(s - top) for s in scores)) - scores[label]
    assert host.losses(Batch(labels, features=z))["ce"].item() == pytest.approx(expected / 5, rel=1e-4)


def test_weights_without_an_image_are_those_of_the_mean_training_feature(clip, toy_bank) -> None:
    host = CoCoOp(clip, toy_bank.classnames, "an icon of a")
    assert host.centre.abs().sum() == 0
    host.prepare(toy_bank, 1, 1)
    mean = toy_bank.features.flatten(0, 1).mean(0)
    torch.testing.assert_close(host.centre, mean, atol=1e-6, rtol=0)
    expected = by_hand(host, mean[None], ["fox", "bus"])[0]
    torch.testing.assert_close(host.class_weights(["fox", "bus"]), expected, atol=1e-5, rtol=0)


def test_the_start_is_seeded_and_leaves_the_global_state_alone(clip) -> None:
    def start(seed: int | None) -> CoCoOp:
        return CoCoOp(clip, NAMES, generator=None if seed is None else torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(start(None).up.weight, start(None).up.weight)
    assert not torch.equal(start(1).down.weight, start(2).down.weight)
    assert torch.equal(torch.get_rng_state(), state)
    host, width = start(None), clip.embed_dim
    assert host.down.weight.shape == (width // 16, width)
    assert host.up.weight.shape == (clip.text.width, width // 16)
    assert host.down.weight.abs().max() <= width**-0.5


def test_presets_and_save_and_load(clip, toy_bank, tmp_path) -> None:
    host = CoCoOp.paper(clip, toy_bank.classnames, image_chunk=3)
    assert host.n_context == 4 and host.config()["image_chunk"] == 3 and "class_specific" not in host.config()
    host.prepare(toy_bank, 1, 1)
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert isinstance(again, CoCoOp) and again.config() == host.config()
    z = images(clip)
    assert torch.equal(again.class_weights(z=z), host.class_weights(z=z))
    assert torch.equal(again.class_weights(["fox"]), host.class_weights(["fox"]))


def test_bad_options_are_refused(clip) -> None:
    with pytest.raises(ValueError, match="image_chunk=0: must be 1 or more"):
        CoCoOp(clip, NAMES, image_chunk=0)
    with pytest.raises(ValueError, match="is 4 tokens long but n_context=7"):
        CoCoOp(clip, NAMES, "an icon of a", n_context=7)

"""Lipsum-FT against the released formula written out on open_clip's own model, in value and gradient."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tuned_world import KNOWN, NEW, TEMPLATE, batch_of, small_bank

from ogenlib.data import PixelBank
from ogenlib.hosts import Batch, LipsumFT, zero_shot_weights
from ogenlib.hosts.lipsum import energy_gap
from ogenlib.towers import EmbeddingTable
from ogenlib.train.config import TrainConfig


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return small_bank(clip)


def moved(clip, **options: Any) -> LipsumFT:
    """Away from the start, where the guidance and its gradient are zero."""
    host = LipsumFT(clip, KNOWN, TEMPLATE, strings=6, **options)
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return host


@pytest.mark.parametrize("unit_head", [False, True])
def test_value_and_gradient_are_those_of_the_formula(clip, bank, unit_head: bool) -> None:
    host, batch = moved(clip, unit_head=unit_head, weight=0.7), batch_of(bank)
    terms = host.losses(batch)
    sum(terms.values()).backward()
    # By hand: SOS, 8 ids below both, EOS; all similarities times the scale; squares; half the mean.
    frozen, tuned = clip.model, deepcopy(clip.model)
    tuned.visual.load_state_dict(host.visual.state_dict())
    tuned.visual.requires_grad_(True)
    head = host.head.detach().clone().requires_grad_(True)
    ids = torch.zeros(6, 24, dtype=torch.long)
    ids[:, 0], ids[:, 9] = 49406, 49407
    ids[:, 1:9] = torch.randint(49406, (6, 8), generator=torch.Generator().manual_seed(0))
    scale = frozen.logit_scale.exp()
    with torch.no_grad():
        g = frozen.encode_text(ids, normalize=True)
        v0 = scale * frozen.encode_image(batch.pixels, normalize=True) @ g.T
    z = tuned.encode_image(batch.pixels, normalize=True)
    w = F.normalize(head, dim=-1) if unit_head else head
    ce = F.cross_entropy(scale * z @ w.T, batch.labels)
    gap = ((scale * z @ g.T - v0) ** 2).sum(1).mean() / (2 * 6)
    (ce + 0.7 * gap).backward()
    assert terms["ce"].item() == pytest.approx(ce.item(), rel=1e-4)
    assert terms["lipsum"].item() == pytest.approx(0.7 * gap.item(), rel=1e-3) and gap > 0.1
    torch.testing.assert_close(host.head.grad, head.grad, atol=1e-4, rtol=1e-3)
    for name, p in tuned.visual.named_parameters():
        own = dict(host.visual.named_parameters())[name].grad
        torch.testing.assert_close(own, p.grad, atol=2e-3 * float(p.grad.abs().max()) + 1e-6, rtol=1e-3)
    assert all(p.grad is None for p in clip.parameters())


def test_the_gap_is_half_the_mean_square_of_logits() -> None:
    z, frozen = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # Differences of similarities 1 and -0.2, times 10, squared: 100 and 4.
    assert energy_gap(z, frozen, texts, 10.0).item() == pytest.approx((100 + 4) / 4)


def test_it_starts_at_zero_shot_without_any_gap(clip, bank) -> None:
    host, batch = LipsumFT(clip, KNOWN, TEMPLATE), batch_of(bank)
    terms = host.losses(batch)
    assert terms["lipsum"].item() == 0
    w = zero_shot_weights(clip, KNOWN, TEMPLATE)
    assert terms["ce"].item() == pytest.approx(
        F.cross_entropy(clip.logit_scale * clip.encode_image(batch.pixels) @ w.T, batch.labels).item(), rel=1e-5
    )
    assert set(host.trainable()) == {"head", *(f"visual.{n}" for n, _ in host.visual.named_parameters())}


def test_strings_are_new_in_every_step_and_the_same_on_every_process(clip, bank) -> None:
    host, source = moved(clip), torch.Generator().manual_seed(0)
    one, two = host.random_features(source), host.random_features(source)
    assert one.shape == (6, clip.embed_dim) and not torch.allclose(one, two)
    whole = batch_of(bank)
    half = Batch(whole.labels[:3], pixels=whole.pixels[:3], generator=torch.Generator().manual_seed(0), total=12)
    terms = host.losses(half)
    expected = energy_gap(host.image_features(half), host.frozen_features(half), one, clip.logit_scale)
    assert terms["lipsum"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_frozen_features_of_the_batch_save_a_pass(clip, bank) -> None:
    host, batch = moved(clip), batch_of(bank)
    plain = host.losses(batch)["lipsum"]
    batch.generator = torch.Generator().manual_seed(0)
    batch.features = clip.encode_image(batch.pixels)
    torch.testing.assert_close(host.losses(batch)["lipsum"], plain, rtol=1e-5, atol=0)
    assert LipsumFT.reads_frozen


def test_head_rows_at_their_own_length(clip) -> None:
    released = LipsumFT.paper(clip, KNOWN)
    assert not released.unit_head
    with torch.no_grad():
        released.head.mul_(2)
    assert torch.equal(released.class_weights(), released.head)
    torch.testing.assert_close(released.class_weights(NEW).norm(dim=-1), torch.ones(len(NEW)))
    torch.testing.assert_close(moved(clip).class_weights().norm(dim=-1), torch.ones(len(KNOWN)))


def test_settings(clip) -> None:
    paper = LipsumFT.paper(clip, KNOWN)
    config = TrainConfig(**paper.train_settings())
    assert (config.lr, config.weight_decay, config.batch_size, config.precision) == (1e-5, 0, 256, "bf16")
    assert (config.schedule, config.warmup_steps, config.clip_grad) == ("steps", 0.1, None)
    made = paper.config()
    assert (made["strings"], made["length"], made["weight"]) == (80, 8, 1.0)
    assert "batch_size" not in LipsumFT(clip, KNOWN).train_settings()


def test_bad_options_are_refused(clip) -> None:
    with pytest.raises(ValueError, match="reads at most 22"):
        LipsumFT(clip, KNOWN, length=30)
    with pytest.raises(ValueError, match="strings=0"):
        LipsumFT(clip, KNOWN, strings=0)
    with pytest.raises(ValueError, match=r"weight=-1.*default 1"):
        LipsumFT(clip, KNOWN, weight=-1)
    with pytest.raises(ValueError, match="tower"):
        LipsumFT(EmbeddingTable(["dog", "cat"], torch.eye(2, 4)), ["dog", "cat"], "{}")

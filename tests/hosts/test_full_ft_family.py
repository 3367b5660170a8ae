"""Full fine-tuning and the baselines that add one thing to it: each term against a hand-written one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from tuned_world import KNOWN, NEW, QUICK, TEMPLATE, batch_of, small_bank

from ogenlib import distill
from ogenlib.data import FeatureBank, PixelBank
from ogenlib.hosts import CARFT, KD, L2SP, LPFT, Batch, FullFT, Host, LinearProbe, WeightEMA, build
from ogenlib.hosts.linear_probe import probe
from ogenlib.runs.assembly import assemble
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit

pytestmark = pytest.mark.slow

CONTEXTS = ("an icon of a {}.", "a sketch of a {}.", "a {} in red.")
FAMILY: dict[str, dict[str, Any]] = {
    "lp_ft": {"probe_epochs": 2}, "ema": {"decay": 0.5}, "l2_sp": {}, "kd": {"temperature": 2.0},
    "car_ft": {"contexts": CONTEXTS},
}  # fmt: skip


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return small_bank(clip)


@pytest.fixture(scope="module")
def batch(bank) -> Batch:
    return batch_of(bank)


def made(name: str, clip: Any, **options: Any) -> FullFT:
    host = build(name, clip, KNOWN, templates=TEMPLATE, **{**FAMILY[name], **options})
    assert isinstance(host, FullFT)
    return host


def moved(host: FullFT, by: float = 0.02) -> FullFT:
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(by * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return host.eval()


def kl(p: Tensor, q: Tensor) -> float:
    """Mean over rows of KL(p || q) of logits."""
    return F.kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean").item()


# --- the loss of each -------------------------------------------------------------------------------------


@torch.no_grad()
def test_cross_entropy_of_scaled_cosines(clip, batch) -> None:
    host = moved(FullFT(clip, KNOWN, TEMPLATE))
    z = F.normalize(host.visual(batch.pixels), dim=-1)
    w = F.normalize(host.head, dim=-1)
    expected = F.cross_entropy(clip.logit_scale * z @ w.T, batch.labels).item()
    assert {k: v.item() for k, v in host.losses(batch).items()} == {"ce": pytest.approx(expected, rel=1e-5)}


@torch.no_grad()
def test_l2_sp_is_half_the_squared_distance(clip, batch) -> None:
    host = made("l2_sp", clip, weight=3.0)
    assert host.losses(batch)["l2_sp"].item() == 0.0
    moved(host)
    start = dict(clip.model.visual.named_parameters())
    distance = sum((p - start[n]).square().sum().item() for n, p in host.visual.named_parameters())
    distance += (host.head - clip.encode_text([TEMPLATE.format(n) for n in KNOWN])).square().sum().item()
    assert host.losses(batch)["l2_sp"].item() == pytest.approx(1.5 * distance, rel=1e-5)
    assert host.train_settings()["weight_decay"] == 0.0
    assert L2SP.paper(clip, KNOWN).train_settings() == {**FullFT.published, "weight_decay": 0.0}


def test_l2_sp_pulls_back_in_proportion_to_the_distance(clip, batch) -> None:
    host = moved(made("l2_sp", clip, weight=3.0))
    host.losses(batch)["l2_sp"].backward()
    for p, start in host.frozen_twins().values():
        torch.testing.assert_close(p.grad, 3.0 * (p.detach() - start), atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_kd_is_the_divergence_from_zero_shot(clip, batch) -> None:
    host = made("kd", clip, weight=0.5)
    assert host.losses(batch)["kd"].item() == pytest.approx(0.0, abs=1e-5)
    moved(host)
    anchor = clip.encode_text([TEMPLATE.format(n) for n in KNOWN])
    before = clip.logit_scale * clip.encode_image(batch.pixels) @ anchor.T
    after = clip.logit_scale * host.image_features(batch) @ F.normalize(host.head, dim=-1).T
    expected = 0.5 * 2.0**2 * kl(before / 2, after / 2)
    assert expected > 1e-3 and host.losses(batch)["kd"].item() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_car_ft_is_the_divergence_over_contexts(clip, batch) -> None:
    host = made("car_ft", clip, weight=2.0)
    rows = []
    for context in CONTEXTS:
        features = clip.encode_text([context.format(n) for n in KNOWN])
        rows.append(F.normalize(features.sum(0), dim=-1))
    contexts = torch.stack(rows)
    torch.testing.assert_close(host.context_weights(), contexts)
    assert host.losses(batch)["context"].item() == pytest.approx(0.0, abs=1e-5)
    moved(host)
    before, after = (
        clip.logit_scale * z @ contexts.T for z in (clip.encode_image(batch.pixels), host.image_features(batch))
    )
    expected = 2 * kl(before, after)
    assert expected > 1e-3 and host.losses(batch)["context"].item() == pytest.approx(expected, rel=1e-4)
    usual = CARFT(clip, KNOWN[:2])
    assert usual.contexts == tuple(t("{}") for t in OPENAI_IMAGENET_TEMPLATES)


@pytest.mark.parametrize("name", ["kd", "car_ft"])
def test_the_frozen_tower_runs_once_for_all_epochs(clip, bank, name: str) -> None:
    calls: list[int] = []
    host = made(name, clip)  # before the hook, which the copy of the tower would have too
    handle = clip.model.visual.register_forward_pre_hook(lambda _, pixels: calls.append(len(pixels[0])))
    try:
        fit(host, bank, **QUICK)
    finally:
        handle.remove()
    assert sum(calls) == len(bank) * bank.views


@pytest.mark.parametrize("name", ["l2_sp", "kd", "car_ft"])
def test_without_weight_it_is_full_fine_tuning(clip, bank, name: str) -> None:
    host, plain = made(name, clip, weight=0.0), FullFT(clip, KNOWN, TEMPLATE)
    settings = {**QUICK, "weight_decay": 0.0}
    fit(host, bank, **settings)
    fit(plain, bank, **settings)
    assert all(torch.equal(p, q) for p, q in zip(host.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("kd", {"weight": -1.0}, "weight=-1.0"), ("l2_sp", {"weight": math.inf}, "weight=inf"),
     ("kd", {"temperature": 0.0}, "temperature=0.0"), ("car_ft", {"contexts": ["a {}."]}, "two or more"),
     ("car_ft", {"contexts": ["a", "a {}."]}, "must each hold"), ("ema", {"decay": 1.0}, "decay=1.0"),
     ("lp_ft", {"probe_epochs": -1}, "probe_epochs=-1"), ("lp_ft", {"probe_lr": 0.0}, "probe_lr=0.0")],
)  # fmt: skip
def test_bad_options_are_refused(clip, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(name, clip, **options)


# --- EMA --------------------------------------------------------------------------------------------------


def test_ema_ends_with_the_average_over_steps(clip, bank) -> None:
    host, plain, seen = made("ema", clip), FullFT(clip, KNOWN, TEMPLATE), []

    class Recorded(FullFT):
        def on_step_end(self) -> None:
            seen.append({n: p.detach().clone() for n, p in self.trainable().items()})

    record = Recorded(clip, KNOWN, TEMPLATE)
    seen.append({n: p.detach().clone() for n, p in record.trainable().items()})
    for each in (host, record, plain):
        fit(each, bank, **QUICK)
    expected = distill.ema_over(seen, 0.5)
    assert len(seen) == 7
    for name, p in host.trainable().items():
        torch.testing.assert_close(p.detach(), expected[name], atol=1e-7, rtol=1e-5)
    assert not torch.equal(host.head, plain.head)
    assert WeightEMA.paper(clip, KNOWN).decay == 0.999


# --- linear probe and LP-FT -------------------------------------------------------------------------------


def test_the_probe_is_a_hand_written_step_away_from_zero_shot(clip, toy_bank) -> None:
    names = list(toy_bank.classnames)
    host = LinearProbe(clip, names, TEMPLATE)
    start = host.head.detach().clone().requires_grad_()
    one_view = FeatureBank(**{**vars(toy_bank), "features": toy_bank.features[:, :1]})
    config = TrainConfig(epochs=1, batch_size=99, lr=0.1, optimizer="sgd", weight_decay=0.0, warmup_epochs=0)
    fit(host, one_view, config=config)
    z = toy_bank.features[:, 0]
    F.cross_entropy(clip.logit_scale * z @ F.normalize(start, dim=-1).T, toy_bank.labels).backward()
    torch.testing.assert_close(host.head, start - 0.1 * start.grad, atol=1e-6, rtol=1e-4)
    assert LinearProbe.unknown_options(["fox"]) == {"extra_names": ["fox"]}


def test_probing_first_trains_the_head_alone_and_is_seeded(clip, bank) -> None:
    features = bank.frozen(clip)
    hosts = [made("lp_ft", clip, probe_epochs=4, probe_lr=1e-2) for _ in range(3)]
    for host, seed in zip(hosts, (1, 1, 2), strict=True):
        host.prepare(features, 2, seed)
    a, b, c = (host.head for host in hosts)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert all(torch.equal(p, start) for p, start in hosts[0].frozen_twins().values())
    losses = [probe(made("lp_ft", clip), features, n, 1, lr=1e-2) for n in (1, 8)]
    assert losses[1] < 0.8 * losses[0]
    plain = made("lp_ft", clip, probe_epochs=0)
    plain.prepare(features, 2, 1)
    assert torch.equal(plain.head, FullFT(clip, KNOWN, TEMPLATE).head)


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FAMILY))
def test_a_killed_training_goes_on_to_the_same_end(clip, bank, tmp_path, name: str) -> None:
    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 1:
            raise KeyboardInterrupt
        return {}

    whole, again = made(name, clip), made(name, clip)
    history = fit(whole, bank, out=tmp_path / "whole", **QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(made(name, clip), bank, out=tmp_path / "cut", measure=stop, **QUICK)
    # The first epoch was measured before its checkpoint was written, so nothing is there yet.
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()

    def stop_later(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit(made(name, clip), bank, out=tmp_path / "cut", measure=stop_later, **QUICK)
    fit(again, bank, out=tmp_path / "cut", **QUICK)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))
    assert all(math.isfinite(v) for e in history.epochs for v in e.values())


@pytest.mark.parametrize("name", list(FAMILY))
def test_ogen_around_it_trains(clip, bank, name: str) -> None:
    small = {"k": 2, "iterations": 3, "rows": 4, "per_class": 4, "teacher": "ema"}
    model = assemble(name, clip, KNOWN, [TEMPLATE], FAMILY[name], ogen=small, unknown=NEW)
    history = fit(model, bank, **{**QUICK, "epochs": 1})
    own = {"ema": set(), "lp_ft": set(), "l2_sp": {"l2_sp"}, "kd": {"kd"}, "car_ft": {"context"}}[name]
    assert {"ce", "zero_shot_kl_real", "synthesized_ce", *own} <= set(history.epochs[0])


def test_presets_carry_the_released_settings(clip) -> None:
    for kind in (FullFT, LPFT, WeightEMA, KD, CARFT):
        host = kind.paper(clip, KNOWN)
        assert not host.unit_head and host.train_settings() == FullFT.published
        assert build(host.info.name, clip, KNOWN, **host.config()).config() == host.config()
    TrainConfig(**FullFT.published)
    TrainConfig(**FullFT(clip, KNOWN).train_settings())

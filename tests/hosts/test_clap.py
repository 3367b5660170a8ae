"""CLAP: its multipliers, its penalty and their update by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib.data import FeatureBank
from ogenlib.hosts import CLAP, Batch, Host, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable
from ogenlib.train.loop import fit


def two_names(**options) -> tuple[CLAP, FeatureBank]:
    table = EmbeddingTable(["a", "b", "c"], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), logit_scale=2.0)
    data = FeatureBank.from_features(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), [0, 1, 1], ["a", "b"], table)
    return CLAP(table, ["a", "b"], "{}", **options), data


def test_multipliers_are_mean_zero_shot_probabilities_of_the_right_class() -> None:
    host, data = two_names(extra_names=["c"])
    host.prepare(data, 1, 1)
    high = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(host.multipliers, torch.tensor([high, (high + 1 - high) / 2, 1.0]))
    assert host.penalties.abs().sum() == 0


def test_weights_and_terms_by_hand() -> None:
    host, data = two_names(length=2.0)
    host.prepare(data, 1, 1)
    with torch.no_grad():
        host.residual.copy_(torch.tensor([[-0.5, 2.0], [0.0, -0.5]]))  # 2 t + x = (1.5, 2) and (0, 1.5)
    torch.testing.assert_close(host.class_weights(), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    terms = host.losses(Batch(torch.tensor([0]), features=torch.tensor([[0.0, 3.0]])))
    assert set(terms) == {"ce", "constraint"}
    assert terms["ce"].item() == pytest.approx(math.log(1 + math.exp(0.4)), rel=1e-6)
    first, second = host.multipliers.tolist()
    assert terms["constraint"].item() == pytest.approx((first * 4.25 + second * 0.25) / 2, rel=1e-6)


def test_the_multipliers_move_as_an_augmented_lagrangian() -> None:
    host, data = two_names(adaptive=True)
    host.prepare(data, 3, 1)
    start = host.multipliers.clone()
    with torch.no_grad():
        host.residual.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    host.on_epoch_end(1, 3)  # the first step has no penalty yet
    torch.testing.assert_close(host.multipliers, start)
    torch.testing.assert_close(host.penalties, torch.tensor([1.0, 4.0]))
    with torch.no_grad():
        host.residual.copy_(torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    host.on_epoch_end(2, 3)
    torch.testing.assert_close(host.multipliers, start + torch.tensor([1.0 * 0.25, 4.0 * 1.0]))
    torch.testing.assert_close(host.penalties, torch.tensor([0.25, 1.0]))


def test_they_stay_where_the_released_command_leaves_them() -> None:
    host, data = two_names()
    host.prepare(data, 3, 1)
    start = host.multipliers.clone()
    fit(host, data, epochs=3, warmup_epochs=0)
    assert torch.equal(host.multipliers, start) and host.residual.abs().sum() > 0
    assert host.train_settings() == {"lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0}


def test_it_starts_as_zero_shot_and_new_names_stay_there() -> None:
    host = CLAP(make_table(), NAMES, "{}")
    zero_shot = ZeroShot(host.clip, NAMES, "{}")
    torch.testing.assert_close(host.class_weights(), zero_shot.class_weights(), atol=1e-6, rtol=0)
    with torch.no_grad():
        host.residual.add_(noise(host.residual.shape))
    torch.testing.assert_close(host.class_weights(OTHERS), zero_shot.class_weights(OTHERS), atol=1e-6, rtol=0)
    assert not torch.allclose(host.class_weights(), zero_shot.class_weights(), atol=1e-3)


def test_the_rate_means_the_same_at_every_length() -> None:
    """A probe that starts `k` times as long needs `k * k` times the rate for the same step of the unit weight."""
    steps = []
    for length, rate in ((1.0, 1e-4), (3.0, 9e-4)):
        host, data = two_names(length=length)
        host.prepare(data, 1, 1)
        host.losses(Batch(data.labels, features=data.features[:, 0]))["ce"].backward()
        with torch.no_grad():
            host.residual.sub_(rate * host.residual.grad)
        steps.append(host.class_weights().detach())
    torch.testing.assert_close(steps[0], steps[1])


def test_moved_multipliers_survive_a_kill(tmp_path) -> None:
    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 3:
            raise KeyboardInterrupt
        return {}

    (whole, data), (killed, _), (again, _) = (two_names(adaptive=True) for _ in range(3))
    whole.prepare(data, 4, 1)
    start = whole.multipliers.clone()
    settings = {"epochs": 4, "warmup_epochs": 0, "lr": 5.0}
    fit(whole, data, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, data, **settings, out=tmp_path, measure=stop)
    fit(again, data, **settings, out=tmp_path)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in again.state_dict().items())
    assert (whole.multipliers - start).abs().max() > 1e-3


def test_save_and_load(tmp_path) -> None:
    host = CLAP(make_table(), NAMES, "{}", adaptive=True, length=4.0, extra_names=("bus",))
    z = F.normalize(noise(torch.Size((6, 8))), dim=-1)
    data = FeatureBank.from_features(z, [0, 1, 2, 0, 1, 2], NAMES, host.clip)
    fit(host, data, epochs=3, warmup_epochs=0)
    host.save(tmp_path)
    again = load_run(tmp_path, clip=host.clip)
    assert (
        again.config()
        == host.config()
        == {"templates": ["{}"], "extra_names": ["bus"], "adaptive": True, "length": 4.0}
    )
    assert torch.equal(again.class_weights(), host.class_weights())
    assert torch.equal(again.multipliers, host.multipliers) and torch.equal(again.penalties, host.penalties)
    with pytest.raises(RuntimeError, match=r"no multipliers yet; train with ogenlib\.fit"):
        again.losses(Batch(data.labels, features=z))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0.0}, r"length=0\.0: must be a positive number"),
        ({"length": float("nan")}, "length=nan"),
        ({"extra_names": "bus"}, "extra_names='bus': pass a list"),
        ({"extra_names": ["bus", "dog"]}, r"hold \['dog'\] more than once"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLAP(make_table(), NAMES, "{}", **options)

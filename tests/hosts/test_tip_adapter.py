"""Tip-Adapter: its cache by hand, names without keys, the search, and training without training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib.data import BaseNewSplit, FeatureBank
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import Batch, TipAdapter, TipAdapterF, ZeroShot, build
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable
from ogenlib.train.loop import fit

BOTH = (TipAdapter, TipAdapterF)


def bank(table: EmbeddingTable, per_class: int = 4, views: int = 2) -> FeatureBank:
    """Around the text feature of the next name."""
    labels = torch.arange(len(NAMES)).repeat_interleave(per_class)
    centres = table.encode_text(list(NAMES)).roll(-1, 0)[labels]
    rows = F.normalize(centres[:, None] + 0.3 * noise(torch.Size((len(labels), views, table.embed_dim))), dim=-1)
    return replace(FeatureBank.from_features(rows[:, 0], labels, NAMES, table), features=rows)


def two_names() -> tuple[EmbeddingTable, FeatureBank]:
    table = EmbeddingTable(["a", "b", "c"], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), logit_scale=2.0)
    data = FeatureBank.from_features(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [0, 1, 1], ["a", "b"], table)
    return table, data


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("centred", [False, True])
def test_logits_by_hand(cls, centred: bool) -> None:
    table, data = two_names()
    host = cls(table, ["a", "b"], "{}", alpha=0.5, beta=3.0, centred=centred)
    z = torch.tensor([[0.6, 0.8]])
    names = ["c", "b", "a"]
    plain = [2 * (0.36 + 0.64), 2 * 0.8, 2 * 0.6]
    torch.testing.assert_close(host.logits(z, host.class_weights(names)), torch.tensor([plain]))  # nothing cached yet
    host.prepare(data, 1, 1)
    of_a, of_b = math.exp(-3 * (1 - 0.6)), 2 * math.exp(-3 * (1 - 0.8))
    if centred:
        of_a, of_b = (of_a - of_b) / 2, (of_b - of_a) / 2
    expected = torch.tensor([[plain[0], plain[1] + 0.5 * of_b, plain[2] + 0.5 * of_a]])
    torch.testing.assert_close(host.logits(z, host.class_weights(names)), expected)


def test_the_released_formula() -> None:
    """scale * f W + alpha * exp(-(beta - beta * f K)) V, written with one-hot values."""
    table = make_table()
    host, data = TipAdapter.paper(table, NAMES, templates="{}"), bank(make_table())
    host.prepare(data, 1, 1)
    z = F.normalize(noise(torch.Size((5, 8)), seed=3), dim=-1)
    values = F.one_hot(data.labels, 3).float()
    expected = 10 * z @ host.class_weights().T + 1.17 * ((-1.0 + z @ host.keys.T).exp() @ values)
    torch.testing.assert_close(host.logits(z, host.class_weights()), expected)
    assert host.config()["alpha"] == 1.17 and host.config()["beta"] == 1.0


@pytest.mark.parametrize("cls", BOTH)
def test_keys_are_features_averaged_over_views(cls) -> None:
    table = make_table()
    host, data = cls(table, NAMES, "{}"), bank(table)
    host.prepare(data, 1, 1)
    mean = data.features.mean(1)
    torch.testing.assert_close(host.keys.data, mean / mean.norm(dim=1, keepdim=True))
    assert torch.equal(host.labels, data.labels)


def test_centring_changes_nothing_among_training_names() -> None:
    table = make_table()
    data = bank(table)
    released, centred = (TipAdapterF(table, NAMES, "{}", centred=c) for c in (False, True))
    z = F.normalize(noise(torch.Size((5, 8)), seed=3), dim=-1)
    for host in (released, centred):
        host.prepare(data, 1, 1)
        host.losses(Batch(data.labels, features=data.features[:, 0]))["ce"].backward()
    chances = [host.logits(z, host.class_weights()).softmax(1) for host in (released, centred)]
    torch.testing.assert_close(*chances)
    torch.testing.assert_close(released.keys.grad, centred.keys.grad, atol=1e-6, rtol=1e-4)
    joint = [host.logits(z, host.class_weights([*NAMES, *OTHERS])).softmax(1) for host in (released, centred)]
    assert joint[1][:, 3:].sum() > 2 * joint[0][:, 3:].sum()


def test_new_names_keep_their_zero_shot_logits_wherever_they_stand() -> None:
    host = TipAdapter(make_table(), NAMES, "{}")
    host.prepare(bank(host.clip), 1, 1)
    z = F.normalize(noise(torch.Size((5, 8)), seed=3), dim=-1)
    zero_shot = ZeroShot(host.clip, NAMES, "{}")

    def both(names) -> tuple[torch.Tensor, torch.Tensor]:
        return host.logits(z, host.class_weights(names)), zero_shot.logits(z, zero_shot.class_weights(names))

    got, plain = both(OTHERS)
    torch.testing.assert_close(got, plain)
    got, plain = both(("fox", "train", "bus", "dog"))
    torch.testing.assert_close(got[:, [0, 2]], plain[:, [0, 2]])
    torch.testing.assert_close(got[:, [3, 1]], host.logits(z, host.class_weights())[:, [0, 2]])
    assert (got - plain)[:, [1, 3]].abs().min() > 1e-3


def test_fit_fills_the_cache_of_the_training_free_one(tmp_path) -> None:
    table = make_table()
    host, data = TipAdapter(table, NAMES, "{}"), bank(table)
    assert not host.trainable() and fit(host, data, out=tmp_path).epochs == []
    assert len(host.keys) == 12 and not list(tmp_path.iterdir())
    names = [*NAMES, *OTHERS]
    everything = FeatureBank.from_features(table.encode_text(names), range(5), names, table)
    assert 0 <= evaluate.base_to_new(host, everything, BaseNewSplit(NAMES, OTHERS))["joint_H"] <= 100
    with pytest.raises(ValueError, match=r"tip_adapter has nothing to train.*tip_adapter_f"):
        host.losses(Batch(data.labels, features=data.features[:, 0]))
    with pytest.raises(ValueError, match="no training images for 1 classes"):
        fit(host, data.subset(data.labels < 2))


def test_the_keys_train_from_where_the_training_free_one_stops() -> None:
    table = make_table()
    data = bank(table)
    free, trained = TipAdapter(table, NAMES, "{}"), TipAdapterF(table, NAMES, "{}")
    with pytest.raises(RuntimeError, match=r"the cache is empty; train with ogenlib\.fit"):
        trained.losses(Batch(data.labels, features=data.features[:, 0]))
    fit(free, data)
    trained.prepare(data, 1, 1)
    batch = Batch(data.labels, features=data.features[:, 0])
    logits = free.logits(data.features[:, 0], free.class_weights())
    assert trained.losses(batch)["ce"].item() == pytest.approx(F.cross_entropy(logits, data.labels).item(), rel=1e-5)
    history = fit(trained, data, epochs=4, warmup_epochs=0)
    assert history.column("ce")[-1] < history.column("ce")[0] and set(trained.trainable()) == {"keys"}
    assert trained.keys.shape == free.keys.shape and not torch.equal(trained.keys, free.keys)
    assert history.epochs[0]["lr"] == 1e-3


def test_the_search_uses_training_images_alone_and_finds_a_better_pair() -> None:
    table = make_table()
    data = bank(table, per_class=8)
    host = TipAdapter(table, NAMES, "{}", alpha=1e-3, beta=1.0, search=True)
    host.prepare(data, 1, 1)
    # Zero-shot is wrong on every class here; the cache must outweigh it.
    assert host.alpha > 0.1 and len(host.keys) == 24 and host.config()["alpha"] == host.alpha
    z = data.features[:, 0]
    right = (host.logits(z, host.class_weights()).argmax(1) == data.labels).float().mean()
    plain = (ZeroShot(table, NAMES, "{}").logits(z, host.class_weights()).argmax(1) == data.labels).float().mean()
    assert right > plain + 0.3
    again = TipAdapter(table, NAMES, "{}", search=True)
    again.prepare(data, 1, 1)
    assert again.config() == host.config()


def test_the_search_refuses_single_images() -> None:
    host = TipAdapter(make_table(), NAMES, "{}", search=True)
    with pytest.raises(ValueError, match="no class has two"):
        host.prepare(bank(host.clip, per_class=1), 1, 1)


@pytest.mark.parametrize("name", ["tip_adapter", "tip_adapter_f"])
def test_save_and_load(name: str, clip, toy_bank, tmp_path) -> None:
    host = build(name, clip, toy_bank.classnames, alpha=2.0, beta=5.5)
    fit(host, toy_bank, epochs=2)
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert again.config() == host.config() and again.config()["size"] == 16
    z = toy_bank.features[:, 0]
    w = host.class_weights(["fox", "dog", "train"])
    assert torch.equal(again.logits(z, w), host.logits(z, w))
    zero_shot = ZeroShot(clip, host.names)
    assert not torch.allclose(again.logits(z, w), zero_shot.logits(z, w), atol=0.1)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha=0\.0: must be a positive number"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"size": -1}, "size=-1: must be 0 or more"),
    ],
)
def test_bad_options_are_refused(cls, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(make_table(), NAMES, "{}", **options)

"""VRF: weights, distances and mixtures by hand, in both published forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import ogenlib as og
from ogenlib import hosts
from ogenlib.data import FeatureBank
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import Batch, Host
from ogenlib.merge.vrf import VRF, failure_weight, kth_distance, matching_temperature, neighbours
from ogenlib.towers import Backbone
from ogenlib.train.batches import test_batches as batches_of

NAMES = ("dog", "red apple", "train", "hammer")  # of `toy_bank`


@pytest.fixture(scope="module")
def trained(clip: Backbone, toy_bank: FeatureBank) -> Host:
    host = hosts.build("taskres", clip, NAMES)
    og.fit(host, toy_bank, epochs=12, seed=1, warmup_epochs=0, lr=0.05)
    return host


def by_hand(model: VRF, z: Any, names: Any) -> Any:
    """Probabilities of frozen features `z`, as the paper writes them, in double precision."""
    squared = model.form == "released-code"
    own = z.double()
    distance = (own[:, None] - model.failures.double()[None]).norm(dim=-1).sort(-1).values[:, model.k - 1]
    share = 1 / (1 + torch.exp(((distance**2 if squared else distance) - 1.5) / 0.6))
    p = [
        (host.logits(z, host.class_weights(names)).double() / t).softmax(-1)
        for host, t in zip((model.host, hosts.ZeroShot(model.clip, NAMES)), model.temperatures, strict=True)
    ]
    return share[:, None] * p[0] + (1 - share[:, None]) * p[1]


def test_the_weight_is_a_half_at_a_and_falls() -> None:
    got = failure_weight(torch.tensor([1.5, 0.9, 2.1]))
    assert got.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


def test_distances_to_the_kth_failure() -> None:
    failures = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    z = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert kth_distance(z, failures, 1).tolist() == pytest.approx([0, math.sqrt(2)])
    assert kth_distance(z, failures, 2).tolist() == pytest.approx([math.sqrt(2)] * 2)
    assert kth_distance(z, failures, 3, squared=True).tolist() == pytest.approx([4, 4])


def test_k_of_both_forms() -> None:
    # ImageNet's numbers: a quarter of 1.28 million fails
    assert neighbours(320_000, 1_280_000, "paper") == 320 and neighbours(320_000, 1_280_000, "released-code") == 250
    assert neighbours(40, 160, "paper") == 1 and neighbours(40, 160, "released-code") == 40  # never more than there are


def test_a_temperature_where_confidence_is_accuracy() -> None:
    logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    found = matching_temperature(logits, torch.tensor([0, 0, 1, 1]))  # three of four right
    assert found == pytest.approx(4 / math.log(3), rel=1e-6)  # sigmoid(4 / T) = 3/4
    assert matching_temperature(logits, torch.tensor([0, 0, 1, 0])) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("form", ["paper", "released-code"])
def test_mixtures_by_hand(form: str, trained: Host, toy_bank: FeatureBank) -> None:
    options = {"calibration": toy_bank} if form == "released-code" else {}
    model = VRF(trained, toy_bank, form, **options)
    z = toy_bank.features[:, 0]
    zero = hosts.ZeroShot(trained.clip, NAMES)
    right, failed = (evaluate.predict_logits(h, toy_bank, NAMES).argmax(1) == toy_bank.labels for h in (trained, zero))
    torch.testing.assert_close(model.failures, F.normalize(z[right & ~failed], dim=-1))
    assert len(model.failures) > 4 and model.k == (1 if form == "paper" else len(model.failures))
    assert (model.temperatures == (1.0, 1.0)) == (form == "paper")
    for names in (NAMES, ("house", "dog")):
        got = evaluate.predict_logits(model, toy_bank, names).double()
        torch.testing.assert_close(got.exp(), by_hand(model, z, names), rtol=1e-4, atol=1e-6)
    near = model.share(model.image_features(next(iter(batches_of(model, toy_bank, 99)))))
    if form == "paper":  # a failure is its own nearest
        assert near[right & ~failed].tolist() == pytest.approx([1 / (1 + math.exp(-2.5))] * len(model.failures))


def test_near_and_far_images(trained: Host, toy_bank: FeatureBank) -> None:
    """With a steep weight the nearest images are the host's and the others zero-shot's."""
    zero, sharp = hosts.ZeroShot(trained.clip, NAMES), VRF(trained, toy_bank, a=1e-3, b=1e-6)
    z = torch.cat([sharp.failures[:3], F.normalize(torch.randn(5, 128, generator=torch.Generator().manual_seed(0)))])
    batch = Batch(torch.zeros(8, dtype=torch.long), features=z)
    both = sharp.image_features(batch)
    with torch.no_grad():
        got = sharp.logits(both, sharp.class_weights())
        own, fixed = (h.logits(z, h.class_weights()).log_softmax(-1) for h in (trained, zero))
    torch.testing.assert_close(got, torch.cat([own[:3], fixed[3:]]))
    assert (own[:3] - fixed[:3]).abs().max() > 0.1


def test_weights_that_depend_on_the_image(clip: Backbone, toy_bank: FeatureBank) -> None:
    host = hosts.build("cocoop", clip, NAMES)
    with torch.no_grad():
        for i, parameter in enumerate(host.trainable().values()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    said = evaluate.predict_logits(host, toy_bank, NAMES).argmax(1)  # labels that the host gets right
    model = VRF(host, replace(toy_bank, labels=said))
    z = toy_bank.features[:3, 0]
    batch = Batch(torch.zeros(3, dtype=torch.long), features=z)
    both = model.image_features(batch)
    with torch.no_grad():
        got = model.logits(both, model.class_weights(z=both)).exp()
        p = [h.logits(z, h.class_weights(z=z)).softmax(-1) for h in (host, hosts.ZeroShot(clip, NAMES))]
    share = model.share(both)[:, None]
    torch.testing.assert_close(got, share * p[0] + (1 - share) * p[1])


def test_what_does_not_fit_is_refused(trained: Host, toy_bank: FeatureBank) -> None:
    for options, message in (
        ({"form": "code"}, "form='code': must be one of paper, released-code"),
        ({"b": 0.0}, "b above 0"),
        ({"k": 99}, r"k=99: must be from 1 to \d+"),
        ({"form": "released-code"}, "needs calibration=BANK"),
        ({"calibration": toy_bank}, "takes no calibration images"),
    ):
        with pytest.raises(ValueError, match=message):
            VRF(trained, toy_bank, **options)
    with pytest.raises(ValueError, match=r"none of the 16 training images .*taskres"):
        VRF(hosts.build("taskres", trained.clip, NAMES), toy_bank)
    model = VRF(trained, toy_bank)
    assert model.trainable() == {} and dict(model.named_parameters()) == {}
    with pytest.raises(ValueError, match="is not saved"):
        model.save("run")
    with pytest.raises(ValueError, match="nothing to train"):
        og.fit(model, toy_bank, epochs=1)

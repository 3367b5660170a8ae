"""CLIP-Adapter: its formula, what it leaves alone, and what OGEN's reference and teacher see of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib import OGEN
from ogenlib.data import FeatureBank
from ogenlib.hosts import Batch, CLIPAdapter, Host, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable


def small() -> CLIPAdapter:
    table = EmbeddingTable(["a", "b"], torch.eye(2), logit_scale=2.0)
    host = CLIPAdapter(table, ["a", "b"], "{}", hidden=2, ratio=0.25)
    with torch.no_grad():
        host.down.weight.copy_(torch.tensor([[1.0, 2.0], [-3.0, 0.0]]))
        host.up.weight.copy_(torch.tensor([[1.0, 9.0], [-1.0, 9.0]]))
    return host


def test_logits_and_loss_by_hand() -> None:
    # f = (0.6, 0.8): down f = (2.2, -1.8), relu (2.2, 0), up (2.2, -2.2), relu (2.2, 0)
    # a quarter of that and three of f: (0.55 + 0.45, 0 + 0.6) = (1.0, 0.6)
    host, z = small(), torch.tensor([[0.6, 0.8]])
    length = math.hypot(1.0, 0.6)
    expected = torch.tensor([[2.0 / length, 1.2 / length]])
    torch.testing.assert_close(host.logits(z, host.class_weights()), expected)
    terms = host.losses(Batch(torch.tensor([1]), features=z))
    assert set(terms) == {"ce"}
    assert terms["ce"].item() == pytest.approx(math.log(1 + math.exp(0.8 / length)), rel=1e-5)


def test_the_length_of_the_feature_does_not_matter() -> None:
    """Why unit features give what the released code gets from raw ones."""
    host = CLIPAdapter(make_table(), NAMES, "{}")
    z = F.normalize(noise(torch.Size((4, 8))), dim=-1)
    torch.testing.assert_close(host.adapted(7 * z), host.adapted(z))


def test_weights_and_features_stay_those_of_zero_shot() -> None:
    host = CLIPAdapter(make_table(), NAMES, "{}")
    zero_shot = ZeroShot(host.clip, NAMES, "{}")
    for names in (None, OTHERS):
        assert torch.equal(host.class_weights(names), zero_shot.class_weights(names))
    z = F.normalize(noise(torch.Size((4, 8))), dim=-1)
    torch.testing.assert_close(host.image_features(Batch(torch.zeros(4).long(), features=z)), z)
    assert (host.logits(z, host.class_weights()) - zero_shot.logits(z, host.class_weights())).abs().max() > 0.01


def test_sizes_and_start(clip) -> None:
    width = clip.embed_dim
    host = CLIPAdapter.paper(clip, NAMES)
    assert host.ratio == 0.2 and host.down.weight.shape == (width // 4, width)
    assert {n: p.shape for n, p in host.trainable().items()} == {
        "down.weight": (width // 4, width),
        "up.weight": (width, width // 4),
    }
    assert host.down.weight.abs().max() <= width**-0.5 and host.up.weight.abs().max() <= (width // 4) ** -0.5
    assert torch.equal(CLIPAdapter(clip, NAMES).up.weight, host.up.weight)
    other = CLIPAdapter(clip, NAMES, generator=torch.Generator().manual_seed(3))
    assert not torch.equal(other.up.weight, host.up.weight)


def test_ogens_reference_is_of_the_frozen_features() -> None:
    off = {"generator": None, "zero_shot_share": 0.0, "synthesized_ce": 0.0, "zero_shot_kl": 1.0, "name_groups": 1}
    host = CLIPAdapter(make_table(), NAMES, "{}", ratio=0.8)
    z = F.normalize(noise(torch.Size((4, 8))), dim=-1)
    model, data = OGEN(host, unknown=OTHERS, **off), Batch(torch.tensor([0, 1, 2, 0]), features=z)
    w = host.class_weights((*NAMES, *OTHERS))
    p, q = (10 * z @ w.T).softmax(1), (10 * host.adapted(z) @ w.T).softmax(1)
    term = model.losses(data)["zero_shot_kl_real"]
    assert term.item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4) and term > 0.01


def test_ogens_teacher_scores_with_the_teachers_adapter() -> None:
    settings = {"generator": None, "zero_shot_share": 0.0, "synthesized_ce": 0.0, "zero_shot_kl": 0.0, "name_groups": 1}
    host = CLIPAdapter(make_table(), NAMES, "{}", ratio=0.8)
    model = OGEN(host, unknown=OTHERS, **settings, teacher="almt")
    z = F.normalize(noise(torch.Size((4, 8))), dim=-1)
    model.prepare(FeatureBank.from_features(z, [0, 1, 2, 0], NAMES, host.clip), 4, 1)
    model.on_epoch_end(1, 4)
    w = host.class_weights((*NAMES, *OTHERS))
    before = host.logits(z, w).detach()
    with torch.no_grad():
        host.up.weight.add_(noise(host.up.weight.shape))
    p, q = before.softmax(1), host.logits(z, w).softmax(1)
    term = model.losses(Batch(torch.tensor([0, 1, 2, 0]), features=z))["teacher"]
    assert term.item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4) and term > 0.01


def test_save_and_load(tmp_path) -> None:
    host = CLIPAdapter(make_table(), NAMES, "{}", hidden=3, ratio=0.5, generator=torch.Generator().manual_seed(2))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=host.clip)
    assert again.config() == host.config() == {"templates": ["{}"], "hidden": 3, "ratio": 0.5}
    z = F.normalize(noise(torch.Size((4, 8))), dim=-1)
    assert torch.equal(again.logits(z, again.class_weights()), host.logits(z, host.class_weights()))
    assert isinstance(again, Host)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden=0: must be 1 or more"),
        ({"ratio": 0.0}, r"ratio=0\.0: must be above 0"),
        ({"ratio": 1.5}, r"ratio=1\.5"),
        ({"ratio": float("nan")}, "ratio=nan"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPAdapter(make_table(), NAMES, "{}", **options)

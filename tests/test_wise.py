"""Hosts between their start and their end: what moves, what stays, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ogenlib as og
from ogenlib import OGEN, hosts
from ogenlib.cli.main import main
from ogenlib.data import FeatureBank
from ogenlib.hosts import Host
from ogenlib.merge.fisher import diagonal_fisher
from ogenlib.merge.wise import interpolated, obstacle, snapshot_of, start_state, wise_ft
from ogenlib.towers import Backbone

TOY_NAMES = ("dog", "red apple", "train", "hammer")  # of `toy_bank`


@pytest.fixture(scope="module")
def trained(clip: Backbone, toy_bank: FeatureBank) -> Host:
    host = hosts.build("taskres", clip, TOY_NAMES)
    og.fit(host, toy_bank, epochs=2, seed=1, warmup_epochs=0)
    return host


def test_the_start_is_built_again(clip: Backbone) -> None:
    for name in ("ivlp", "text_adapter", "coop"):
        host = hosts.build(name, clip, TOY_NAMES)
        before = snapshot_of(host)
        assert before.keys() == host.state_dict().keys()
        with torch.no_grad():
            for parameter in host.trainable().values():
                parameter.add_(1.0)
        again = start_state(host)
        assert all(torch.equal(again[n], before[n]) for n in before)
        assert not any(torch.equal(again[n], host.state_dict()[n]) for n in host.trainable())


def test_a_copy_lies_between_and_the_trained_host_is_unharmed(trained: Host) -> None:
    residual = trained.state_dict()["residual"].clone()
    assert residual.abs().max() > 0
    half = wise_ft(trained, 0.25)
    torch.testing.assert_close(half.state_dict()["residual"], 0.25 * residual)  # it started at zero
    assert half is not trained and not half.training and torch.equal(trained.state_dict()["residual"], residual)
    torch.testing.assert_close(
        wise_ft(trained, 0).class_weights(), hosts.ZeroShot(trained.clip, TOY_NAMES).class_weights()
    )
    torch.testing.assert_close(wise_ft(trained, 1).class_weights(), trained.class_weights(), rtol=0, atol=0)


def test_a_block_swaps_and_puts_back(trained: Host) -> None:
    before, start = trained.state_dict()["residual"].clone(), start_state(trained)
    with interpolated(trained, 0.25, start) as host:
        assert host is trained
        torch.testing.assert_close(host.class_weights(), wise_ft_weights(trained, before))
    assert torch.equal(trained.state_dict()["residual"], before) and trained.trainable()["residual"].requires_grad
    with pytest.raises(RuntimeError, match="stop"), interpolated(trained, 0):
        raise RuntimeError("stop")
    assert torch.equal(trained.state_dict()["residual"], before)


def wise_ft_weights(host: Any, residual: Tensor) -> Tensor:
    return F.normalize(host.anchor(TOY_NAMES) + host.alpha * 0.25 * residual, dim=-1)


def test_full_fine_tuning_goes_back_to_zero_shot(clip: Backbone) -> None:
    host = hosts.build("full_ft", clip, TOY_NAMES)
    with torch.no_grad():
        for parameter in host.trainable().values():
            parameter.mul_(1.5)
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    batch = hosts.Batch(torch.zeros(2, dtype=torch.long), pixels=pixels)
    with interpolated(host, 0), torch.no_grad():
        torch.testing.assert_close(host.image_features(batch), clip.encode_image(pixels))
        torch.testing.assert_close(host.class_weights(), hosts.ZeroShot(clip, TOY_NAMES).class_weights())
    frozen = dict(clip.image.visual.named_parameters())
    half, name = wise_ft(host, 0.5), next(iter(frozen))
    torch.testing.assert_close(dict(half.named_parameters())[f"visual.{name}"], 1.25 * frozen[name])


def test_inside_ogen_the_host_is_interpolated(clip: Backbone, trained: Host) -> None:
    model = OGEN(trained, unknown=["house"], zero_shot_share=0.5)
    start = start_state(model)
    assert start.keys() == trained.state_dict().keys()
    copy = wise_ft(model, 0)
    assert isinstance(copy, OGEN) and copy.others == ("house",) and copy.config_.zero_shot_share == 0.5
    torch.testing.assert_close(copy.class_weights(TOY_NAMES), hosts.ZeroShot(clip, TOY_NAMES).class_weights())
    with interpolated(model, 0, start):
        torch.testing.assert_close(model.class_weights(), copy.class_weights())
    assert not torch.allclose(model.class_weights(), copy.class_weights())


def test_what_cannot_be_interpolated_says_why(clip: Backbone, trained: Host) -> None:
    assert obstacle(trained) is None
    zero = hosts.ZeroShot(clip, TOY_NAMES)
    assert obstacle(zero) == "zero_shot has nothing that training changed"
    with pytest.raises(ValueError, match="zero_shot has nothing that training changed"):
        wise_ft(zero, 0.5)
    other = hosts.build("taskres", clip, TOY_NAMES[:2]).state_dict()
    with (
        pytest.raises(ValueError, match=r"not made of the same tensors: 'residual' is"),
        interpolated(trained, 0.5, other),
    ):
        pass
    with pytest.raises(ValueError, match="alpha=2"):
        wise_ft(trained, 2)


def test_alpha_on_the_command_line(trained: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained.save(tmp_path / "run"))
    assert main(["export", run, "--alpha", "0", "--format", "head", "--no-tower", "--out", str(tmp_path / "head")]) == 0
    from safetensors.torch import load_file

    rows = load_file(tmp_path / "head" / "head.safetensors")["weight"]
    torch.testing.assert_close(rows, hosts.ZeroShot(trained.clip, TOY_NAMES).class_weights())
    assert main(["export", run, "--alpha", "1.5", "--out", str(tmp_path / "no")]) == 2
    assert "alpha=1.5: must be from 0" in capsys.readouterr().err and not (tmp_path / "no").exists()


class Linear(Host):
    """Logits are `z @ w.T` for a trained `w`."""

    info = hosts.MethodInfo("linear", "baseline", "none", "https://example.org", 2000)

    def __init__(self, clip: Any, names: Any) -> None:
        super().__init__(clip, names)
        self.w = torch.nn.Parameter(torch.randn(len(names), clip.embed_dim, generator=torch.Generator().manual_seed(0)))
        self.unused = torch.nn.Parameter(torch.zeros(2))

    def class_weights(self, names: Any = None, z: Any = None) -> Tensor:
        return self.w

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        return z @ w.T

    def config(self) -> dict[str, Any]:
        return {}


def test_fisher_of_a_linear_host_by_hand(clip: Backbone, toy_bank: FeatureBank) -> None:
    """The gradient of log p(y) for row c is (1[y = c] - p_c) z."""
    host = Linear(clip, TOY_NAMES)
    z = toy_bank.features.unflatten(0, (len(toy_bank),))[:, 0]
    p = (z @ host.w.detach().T).softmax(-1)
    one_view = FeatureBank(
        toy_bank.features[:, :1],
        toy_bank.labels,
        toy_bank.classnames,
        toy_bank.domains,
        toy_bank.keys,
        toy_bank.fingerprint,
    )
    every = diagonal_fisher(host, one_view, targets="expected", images=None)
    # sum_y p_y (1[y = c] - p_c)^2 = p_c (1 - p_c)
    torch.testing.assert_close(every["w"], torch.einsum("nc,nd->cd", p * (1 - p), z**2) / len(z))
    assert every["unused"].tolist() == [0, 0]
    empirical = diagonal_fisher(host, one_view, targets="labels", images=None)
    hit = F.one_hot(toy_bank.labels, len(TOY_NAMES)).float()
    torch.testing.assert_close(empirical["w"], torch.einsum("nc,nd->cd", (hit - p) ** 2, z**2) / len(z))
    drawn = [diagonal_fisher(host, one_view, images=8, seed=s)["w"] for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert all(p.grad is None for p in host.parameters())


def test_fisher_refuses(clip: Backbone, toy_bank: FeatureBank) -> None:
    host = Linear(clip, TOY_NAMES)
    with pytest.raises(ValueError, match="targets='all': must be one of drawn, expected, labels"):
        diagonal_fisher(host, toy_bank, targets="all")
    with pytest.raises(ValueError, match="images=0"):
        diagonal_fisher(host, toy_bank, images=0)
    with pytest.raises(ValueError, match="zero_shot has nothing to train"):
        diagonal_fisher(hosts.ZeroShot(clip, TOY_NAMES), toy_bank)

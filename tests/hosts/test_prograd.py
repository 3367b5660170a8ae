"""ProGrad: the projection by hand, and the gradient that a step really gets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib import OGEN
from ogenlib.hosts import Batch, CoOp, ProGrad, ZeroShot
from ogenlib.hosts.prograd import projected
from ogenlib.runs.saved import load_run
from ogenlib.train.loop import fit

NAMES = ["dog", "red apple", "train"]
TEMPLATE = "the {} symbol"


def batch(clip, n: int = 6) -> Batch:
    z = torch.randn(n, clip.embed_dim, generator=torch.Generator().manual_seed(0))
    return Batch(torch.arange(n) % len(NAMES), features=F.normalize(z, dim=-1), generator=torch.Generator())


def moved(host: CoOp, seed: int = 1) -> CoOp:
    with torch.no_grad():
        host.context.add_(0.3 * torch.randn(host.context.shape, generator=torch.Generator().manual_seed(seed)))
    return host


def parts(host: CoOp, data: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of the cross-entropy and of KL(zero-shot || prompted), taken alone."""
    p = ZeroShot(host.clip, NAMES, TEMPLATE)
    logits = host.logits(data.features, host.class_weights())
    target = p.logits(data.features, p.class_weights()).softmax(1)
    kl = (target * (target.log() - logits.log_softmax(1))).sum(1).mean()
    (a,) = torch.autograd.grad(F.cross_entropy(logits, data.labels), host.context, retain_graph=True)
    (b,) = torch.autograd.grad(kl, host.context)
    return a, b


@pytest.mark.parametrize(
    ("general", "strength", "expected"),
    [
        ((-2.0, 0.0), 1.0, (0.0, 4.0)),  # against: what is left stands upright on it
        ((-2.0, 0.0), 0.5, (1.5, 4.0)),
        ((2.0, 0.0), 1.0, (3.0, 4.0)),  # along: untouched
        ((0.0, 0.0), 1.0, (3.0, 4.0)),  # nothing known: untouched
        ((-1.0, -1.0), 1.0, (-0.5, 0.5)),  # the dot product is -7, and (3, 4) - 3.5 * (1, 1) is left
    ],
)
def test_the_projection_by_hand(general, strength: float, expected) -> None:
    got = projected(torch.tensor([3.0, 4.0]), torch.tensor(general), strength)
    torch.testing.assert_close(got, torch.tensor(expected))


def test_steps_get_the_projected_gradient_and_the_plain_value(clip) -> None:
    data, conflicts = batch(clip), []
    for seed in range(4):
        host = moved(ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE), seed)
        terms = host.losses(data)
        assert set(terms) == {"ce"}
        plain = F.cross_entropy(host.logits(data.features, host.class_weights()), data.labels)
        assert terms["ce"].item() == pytest.approx(plain.item(), rel=1e-5)
        terms["ce"].backward()
        a, b = parts(host, data)
        conflicts.append(bool((a * b).sum() < 0))
        expected = a - (a * b).sum() / b.square().sum() * b if conflicts[-1] else a
        torch.testing.assert_close(host.context.grad, expected, atol=1e-5, rtol=1e-3)
    assert any(conflicts)


def test_a_scaler_does_not_change_it(clip) -> None:
    host, data = moved(ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE)), batch(clip)
    (plain,) = torch.autograd.grad(host.losses(data)["ce"], host.context)
    (scaled,) = torch.autograd.grad(1024 * host.losses(data)["ce"], host.context)
    torch.testing.assert_close(scaled / 1024, plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("chunk", [None, 2])
def test_other_terms_are_added_to_it_unprojected(clip, chunk) -> None:
    """What OGEN does: the same graph behind several terms, whatever their order."""
    host, data = moved(ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE, chunk=chunk)), batch(clip)
    (own,) = torch.autograd.grad(host.losses(data)["ce"], host.context)
    (other,) = torch.autograd.grad(host.class_weights()[:, 0].sum(), host.context)
    for first in (False, True):
        w = host.class_weights()
        early = w[:, 0].sum()
        term = host.losses(data, w=w)["ce"]
        late = early if first else w[:, 0].sum()
        host.context.grad = None
        torch.stack([term, late]).sum().backward()
        torch.testing.assert_close(host.context.grad, own + other, atol=1e-5, rtol=1e-3)


def test_inside_ogen_the_known_names_are_projected(clip) -> None:
    off = {"generator": None, "zero_shot_share": 0.0, "synthesized_ce": 0.0, "zero_shot_kl": 0.0, "name_groups": 1}
    host, data = moved(ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE)), batch(clip)
    (own,) = torch.autograd.grad(host.losses(data)["ce"], host.context)
    terms = OGEN(host, unknown=["fox"], **off).losses(data)
    (got,) = torch.autograd.grad(sum(terms.values()), host.context)
    torch.testing.assert_close(got, own, atol=1e-5, rtol=1e-3)


def test_strength_zero_is_coop(clip) -> None:
    host = moved(ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE, strength=0.0))
    coop, data = moved(CoOp(clip, NAMES, "an icon of a")), batch(clip)
    (a,) = torch.autograd.grad(host.losses(data)["ce"], host.context)
    (b,) = torch.autograd.grad(coop.losses(data)["ce"], coop.context)
    torch.testing.assert_close(a, b)


def test_it_moves_the_known_less_than_coop(clip, toy_bank) -> None:
    """Zero-shot is wrong on the toy images: every step that learns them conflicts with it."""

    def drift(cls, **options) -> float:
        host = cls(clip, toy_bank.classnames, "an icon of a", **options)
        fit(host, toy_bank, epochs=5, batch_size=8, warmup_epochs=0)
        return F.cross_entropy(host.logits(toy_bank.features[:, 0], host.class_weights()), toy_bank.labels).item()

    assert drift(ProGrad, templates="an icon of a {}.") > drift(CoOp)


def test_without_gradients_it_gives_the_value(clip) -> None:
    host = ProGrad(clip, NAMES, "an icon of a", templates=TEMPLATE)
    with torch.no_grad():
        assert not host.losses(batch(clip))["ce"].requires_grad


def test_save_and_load_and_presets(clip, tmp_path) -> None:
    host = ProGrad(clip, NAMES, None, n_context=3, strength=0.8, temperature=2.0, templates=["a {}", TEMPLATE])
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert isinstance(again, ProGrad) and again.config() == host.config()
    assert torch.equal(again.class_weights(["cat"]), host.class_weights(["cat"]))
    preset = ProGrad.paper(clip, NAMES)
    assert (preset.n_context, preset.strength, preset.temperature) == (4, 1.0, 1.0)
    assert ProGrad.dataset_options(["an icon of a {}."]) == {
        "context": "an icon of a",
        "templates": ["an icon of a {}."],
    }
    assert host.reference_templates() == ("a {}", TEMPLATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"strength=-1\.0: must be 0 or more"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"temperature": 0.0}, r"temperature=0\.0: must be a positive number"),
        ({"templates": "no slot"}, "must each hold"),
    ],
)
def test_bad_options_are_refused(clip, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProGrad(clip, NAMES, **options)

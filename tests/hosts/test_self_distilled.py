"""CaRot and TRACER: their terms against the formulas, their teachers against plain loops, and training them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tuned_world import KNOWN, QUICK, TEMPLATE, batch_of, small_bank

from ogenlib.data import PixelBank
from ogenlib.distill import beta_weights
from ogenlib.hosts import FLYP, TRACER, CaRot, Host
from ogenlib.hosts.carot import RisingEMA
from ogenlib.hosts.parts.projections import distance_to_orthogonal, image_projection, joint_norm, text_projection
from ogenlib.hosts.parts.self_distilled import Seen, both_ways
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit

pytestmark = pytest.mark.slow

KINDS: dict[str, Callable[..., Any]] = {"carot": CaRot, "tracer": TRACER}


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return small_bank(clip)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def seen(n: int = 5, d: int = 8) -> Seen:
    return Seen(*(unit(n, d, seed=seed) for seed in range(4)))


def distillation(kind: str, clip, pairs: Seen, scale: float, **options: Any) -> float:
    return KINDS[kind](clip, KNOWN, TEMPLATE, **options).distillation(pairs, torch.tensor(scale)).item()


# --- the terms --------------------------------------------------------------------------------------------


def test_distillation_of_carot_by_hand(clip) -> None:
    pairs, scale = seen(), 7.0
    student, teacher = scale * pairs.images @ pairs.texts.T, scale * pairs.teacher_images @ pairs.teacher_texts.T
    # The released cross-entropy, both ways added, less the teacher's entropy.
    expected = 0.0
    for s, t in ((student, teacher), (student.T, teacher.T)):
        p = t.softmax(1)
        expected += float((-(p * s.log_softmax(1)).sum(1) + (p * p.log()).sum(1)).mean())
    assert distillation("carot", clip, pairs, scale) == pytest.approx(expected, rel=1e-5)


def test_its_gradient_is_that_of_the_cross_entropy() -> None:
    s, t = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    both_ways(s, t).backward()
    own, s.grad = s.grad, None
    (F.cross_entropy(s, t.softmax(1)) + F.cross_entropy(s.T, t.T.softmax(1))).backward()
    torch.testing.assert_close(own, s.grad)


def test_distillation_of_tracer_by_hand(clip) -> None:
    pairs, scale, diagonal = seen(), 7.0, torch.arange(5)
    i, t, ti, tt = pairs.images, pairs.texts, pairs.teacher_images, pairs.teacher_texts
    teacher = scale * ti @ tt.T

    def kl(student: Tensor, target: Tensor) -> float:
        return F.kl_div(student.log_softmax(1), target.softmax(1), reduction="batchmean").item()

    terms = {
        "relation": (kl(scale * i @ t.T, teacher) + kl(scale * t @ i.T, teacher.T)) / 2,
        "features": ((i - ti).square().mean() + (t - tt).square().mean()).item(),
        "interaction": (
            F.cross_entropy(scale * i @ tt.T, diagonal) + F.cross_entropy(scale * t @ ti.T, diagonal)
        ).item()
        / 2,
        "cross": (kl(scale * i @ tt.T, teacher) + kl(scale * t @ ti.T, teacher.T)) / 2,
    }
    none = dict.fromkeys(terms, 0.0)
    for name, value in terms.items():
        assert distillation("tracer", clip, pairs, scale, **{**none, name: 3.0}) == pytest.approx(3 * value, rel=1e-5)
    released = {"relation": 1.0, "features": 2000.0, "interaction": 1.0, "cross": 1.0}
    whole = sum(released[name] * value for name, value in terms.items())
    assert distillation("tracer", clip, pairs, scale) == pytest.approx(whole, rel=1e-5)


def test_terms_on_the_projections(clip, bank) -> None:
    model = clip.model
    v, t = image_projection(model), text_projection(model)
    assert v is model.visual.proj and t is model.text_projection
    assert joint_norm(v, t).item() == pytest.approx((v @ t.T).square().sum().sqrt().item(), rel=1e-5)
    gap = v.T @ v - torch.eye(v.shape[1])
    assert distance_to_orthogonal(v).item() == pytest.approx(gap.square().sum().sqrt().item(), rel=1e-5)
    square = torch.eye(4, requires_grad=True)
    distance_to_orthogonal(square).backward()  # no step at the minimum, where a root has none
    assert bool(square.grad.isfinite().all())
    host, batch = CaRot(clip, KNOWN, TEMPLATE), batch_of(bank)
    terms = host.losses(batch)
    assert terms["joint_norm"].item() == pytest.approx(0.05 * joint_norm(v, t).item(), rel=1e-5)
    assert terms["orthogonal"].item() == pytest.approx(0.2 * distance_to_orthogonal(v).item(), rel=1e-5)
    assert set(TRACER(clip, KNOWN, TEMPLATE).losses(batch)) == {"contrastive", "joint_norm"}


def test_projections_of_other_towers() -> None:
    class Part(nn.Module):
        def __init__(self, **parts: Any) -> None:
            super().__init__()
            for name, value in parts.items():
                setattr(self, name, value)

    linear = nn.Linear(6, 4)
    resnet, timm = Part(attnpool=Part(c_proj=linear)), Part(head=Part(proj=linear))
    for visual in (resnet, timm):
        assert torch.equal(image_projection(Part(visual=visual)), linear.weight.T)
    custom = Part(visual=Part(), text=Part(text_projection=linear))
    assert torch.equal(text_projection(custom), linear.weight.T)
    with pytest.raises(ValueError, match="the image tower Part ends without a linear map"):
        image_projection(custom)
    with pytest.raises(ValueError, match="the text tower Part ends without"):
        text_projection(Part(text=Part(proj=nn.Identity())))


# --- the teachers -----------------------------------------------------------------------------------------


def test_the_rising_average_against_a_loop() -> None:
    p = torch.zeros(1)
    teacher = RisingEMA({"p": p}, steps=20, every=2)
    by_hand = 0.0
    for step in range(0, 20, 2):
        p.fill_(float(step + 1))
        decay = 0.05 + 0.85 * step / 4 if step < 4 else 0.9  # a fifth of 20 steps
        by_hand = decay * by_hand + (1 - decay) * (step + 1)
        teacher.update(step // 2 + 1)
    assert teacher.state()["p"].item() == pytest.approx(by_hand, rel=1e-6)


def record(host: Any) -> list[dict[str, Tensor]]:
    """The student's tensors at the start and after every step, as training goes on."""
    seen: list[dict[str, Tensor]] = [{n: p.detach().clone() for n, p in host.trainable().items()}]
    inner = host.on_step_end

    def on_step_end() -> None:
        inner()
        seen.append({n: p.detach().clone() for n, p in host.trainable().items()})

    host.on_step_end = on_step_end
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_of_a_run_is_the_average_of_its_steps(kind: str, clip, bank) -> None:
    host = KINDS[kind](clip, KNOWN, TEMPLATE)
    states, kept = record(host), {}

    def look(_: Host, epoch: int) -> dict[str, float]:
        return {}

    inner = host.on_epoch_end

    def on_epoch_end(epoch: int, total: int) -> None:
        kept.update(host.teacher.state())
        inner(epoch, total)

    host.on_epoch_end = on_epoch_end
    fit(host, bank, measure=look, **{**QUICK, "lr": 1e-3})  # two epochs of three steps
    assert len(states) == 7 and host.teacher is None
    name = "model.visual.proj"
    if kind == "tracer":
        weights = beta_weights(7)
        expected = sum(w * state[name] for w, state in zip(weights, states, strict=True))
    else:  # updated after steps 0 and 5, a rise over the first 1.2 steps
        first = 0.05 * states[0][name] + 0.95 * states[1][name]
        expected = 0.9 * first + 0.1 * states[6][name]
    torch.testing.assert_close(kept[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_teaches_from_the_second_step_on_and_leaves_the_student_alone(kind: str, clip, bank) -> None:
    host, batch = KINDS[kind](clip, KNOWN, TEMPLATE), batch_of(bank)
    host.on_start(1, 6)
    assert "distill" not in host.losses(batch)
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    host.on_step_end()
    with torch.no_grad():
        host.model.visual.proj.add_(0.1)
    before = {n: p.detach().clone() for n, p in host.trainable().items()}
    terms = host.losses(batch)
    assert terms["distill"].item() > 0
    sum(terms.values()).backward()
    assert all(torch.equal(p, before[n]) and p.grad is not None for n, p in host.trainable().items())
    assert not set(host.teacher.state()) - set(host.trainable())


def test_without_its_terms_it_is_flyp(clip, bank) -> None:
    off = {"distill": 0, "joint": 0, "orthogonal": 0}
    settings = {**QUICK, "epochs": 1}
    plain = FLYP(clip, KNOWN, TEMPLATE)
    fit(plain, bank, **settings)
    host = CaRot(clip, KNOWN, TEMPLATE, **off)
    fit(host, bank, **settings)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), host.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_continued_is_bit_identical(kind: str, clip, bank, tmp_path) -> None:
    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return {}

    def make() -> Any:
        return KINDS[kind](clip, KNOWN, TEMPLATE, every=2)

    whole, again = make(), make()
    fit(whole, bank, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), bank, out=tmp_path, measure=stop, **QUICK)
    fit(again, bank, out=tmp_path, **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


# --- options ----------------------------------------------------------------------------------------------


def test_settings_of_the_released_code(clip) -> None:
    carot, tracer = CaRot.paper(clip, KNOWN), TRACER.paper(clip, KNOWN)
    for host in (carot, tracer):
        config = TrainConfig(**host.train_settings())
        assert (config.lr, config.weight_decay, config.batch_size, config.epochs) == (1e-5, 0.1, 512, 10)
        assert (config.schedule, config.warmup_steps) == ("steps", 500)
    assert carot.config() | {"distill": 1.5, "joint": 0.05, "orthogonal": 0.2, "every": 500} == carot.config()
    own = {"distill": 0.9, "joint": 0.05, "orthogonal": 0.0, "every": 1, "beta": 0.5, "features": 2000.0}
    assert tracer.config() | own == tracer.config()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("carot", {"distill": -1}, "distill=-1: must be 0 or more"),
        ("carot", {"joint": float("inf")}, "joint=inf"),
        ("carot", {"every": 0}, "every=0: must be 1 step"),
        ("tracer", {"beta": 0}, "beta=0: must be a positive number"),
        ("tracer", {"features": -2}, "features=-2: must be 0 or more"),
        ("tracer", {"texts": {"bird": ["a"]}}, "texts has none for 3 names"),
    ],
)
def test_bad_options_are_refused(kind: str, options: dict[str, Any], message: str, clip) -> None:
    with pytest.raises(ValueError, match=message):
        KINDS[kind](clip, KNOWN, TEMPLATE, **options)

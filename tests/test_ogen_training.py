"""Training with OGEN: what moves when, what is never touched, teachers over time, precision."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from ogen_world import (
    KNOWN,
    OFF,
    SMALL,
    UNKNOWN,
    PerImage,
    Watched,
    adapter,
    make_bank,
    make_table,
    same,
    train,
    values,
)
from torch import Tensor

from ogenlib import OGEN
from ogenlib.hosts import CoOp, Host, TaskRes
from ogenlib.train.loop import fit

EVERYTHING: dict[str, Any] = {
    **SMALL, "zero_shot_kl": 0.3, "synthesized_kl": 0.2, "synthesized_ce": 0.5, "synthesized_ce_within": 0.3,
    "zero_shot_share": 0.4,
}  # fmt: skip
JOINT: dict[str, Any] = {**SMALL, "generator": "joint", "spread": "none", "joint": True}


def columns(history: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]


# --- off is off -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [adapter, lambda t: TaskRes(t, KNOWN, "{}")])
def test_with_everything_off_training_is_the_hosts_own_bit_for_bit(method) -> None:
    table = make_table()
    bank = make_bank(table)
    bare, wrapped, start = method(table), method(table), method(table)
    first, second = train(bare, bank), train(OGEN(wrapped, **OFF), bank)
    assert same(values(bare), values(wrapped)) and columns(first) == columns(second)
    assert not same(values(bare), values(start))


def test_with_everything_off_a_prompt_trains_bit_for_bit_too(clip, toy_bank) -> None:
    bare, wrapped = (CoOp(clip, toy_bank.classnames, "an icon of a") for _ in range(2))
    fit(bare, toy_bank, epochs=3, batch_size=8)
    fit(OGEN(wrapped, **OFF), toy_bank, epochs=3, batch_size=8)
    assert torch.equal(bare.context, wrapped.context)


def test_names_that_take_no_part_change_rounding_alone() -> None:
    """One group draws nothing; longer matrix products may round otherwise."""
    table = make_table()
    bare, wrapped = adapter(table), adapter(table)
    train(bare, make_bank(table))
    train(OGEN(wrapped, unknown=UNKNOWN, name_groups=1, **OFF), make_bank(table))
    for name, value in values(bare).items():
        torch.testing.assert_close(values(wrapped)[name], value, atol=1e-5, rtol=1e-4)


# --- images of unknown classes ----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [EVERYTHING, {**EVERYTHING, **JOINT, "teacher": "almt", "warmup": 0.3}])
def test_images_of_unknown_classes_change_nothing(settings: dict[str, Any]) -> None:
    """Not even their number: banks without them, with them, and with others in their place."""
    table = make_table()
    whole, known = make_bank(table), make_bank(table, KNOWN)
    keep = whole.labels < len(KNOWN)
    known.features[:] = whole.features[keep]
    shuffled = make_bank(table)
    shuffled.features[:] = torch.where(keep[:, None, None], whole.features, whole.features.flip(2))
    assert not torch.equal(shuffled.features, whole.features)
    ends, histories = [], []
    for bank in (known, whole, shuffled):
        model = OGEN(adapter(table), unknown=UNKNOWN, **settings)
        histories.append(columns(train(model, bank)))
        ends.append((values(model), dict(model.rows.generator.state_dict())))
    for end, history in zip(ends[1:], histories[1:], strict=True):
        assert same(end[0], ends[0][0]) and same(end[1], ends[0][1]) and history == histories[0]


# --- the generator before and along with the host ---------------------------------------------------------


def follow(model: OGEN, **settings: Any) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]], Any]:
    """Tensors of host and generator before training and after every epoch."""
    hosts, generators = [values(model)], []
    prepare = model.prepare

    def prepared(*arguments: Any) -> None:
        prepare(*arguments)
        generators.append(weights())

    def weights() -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in model.rows.generator.named_parameters()}

    def measure(host: Host, epoch: int) -> dict[str, float]:
        hosts.append(values(model))
        generators.append(weights())
        return {}

    model.prepare = prepared  # type: ignore[method-assign]
    return hosts, generators, train(model, make_bank(model.clip), measure, **settings)


@pytest.mark.parametrize("epochs", [4, 5])
def test_in_the_warm_up_the_generator_learns_alone(epochs: int) -> None:
    model = OGEN(adapter(make_table()), unknown=UNKNOWN, **{**EVERYTHING, **JOINT, "warmup": 0.5})
    hosts, generators, history = follow(model, epochs=epochs)
    assert [same(a, b) for a, b in pairwise(hosts)] == [True, True] + [False] * (epochs - 2)
    assert not any(same(a, b) for a, b in pairwise(generators))
    for record in history.epochs:
        assert ("ce" in record) == (record["epoch"] > 2) and "generator" in record


def test_without_warm_up_both_learn_from_the_first_epoch() -> None:
    model = OGEN(adapter(make_table()), unknown=UNKNOWN, **{**EVERYTHING, **JOINT})
    hosts, generators, history = follow(model, epochs=2)
    assert not same(hosts[0], hosts[1]) and not same(generators[0], generators[1])
    assert len(history.column("ce")) == len(history.column("generator")) == 2


def test_a_joint_generator_follows_its_own_loss_alone() -> None:
    """The host's terms see synthesized rows without gradient: they leave the generator's path as it is."""
    paths = []
    for settings in ({"synthesized_ce": 1.0, "zero_shot_kl": 0.0}, {"synthesized_ce": 9.0, "zero_shot_kl": 2.0}):
        model = OGEN(adapter(make_table()), **{**JOINT, **settings})
        paths.append(follow(model, epochs=2)[1])
    assert all(same(a, b) for a, b in zip(*paths, strict=True))


def test_the_generator_weight_scales_its_term() -> None:
    first = []
    for weight in (1.0, 3.0):
        model = OGEN(adapter(make_table()), **{**JOINT, "generator_weight": weight})
        first.append(train(model, make_bank(model.clip), epochs=1, batch_size=64).column("generator")[0])
    assert first[1] == pytest.approx(3 * first[0], rel=1e-5)


def test_a_generator_trained_first_stays_as_it_is() -> None:
    model = OGEN(adapter(make_table()), unknown=UNKNOWN, **EVERYTHING)
    hosts, generators, history = follow(model, epochs=3)
    assert not same(hosts[0], hosts[-1]) and all(same(generators[0], g) for g in generators)
    assert history.column("generator") == []


@pytest.mark.parametrize("settings", [{"teacher": "almt"}, {"teacher": "ema"}, {**JOINT, "warmup": 0.5}])
def test_training_twice_starts_anew(settings: dict[str, Any]) -> None:
    table = make_table()
    model = OGEN(adapter(table), unknown=UNKNOWN, **{**EVERYTHING, **settings})
    start = values(model)
    first = train(model, make_bank(table))
    model.host.load_state_dict(start)
    assert columns(train(model, make_bank(table))) == columns(first)


# --- rows of unknown names --------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_shot_kl", [0.0, 1.0])
def test_free_rows_of_unknown_names_are_trained_by_synthesized_rows(zero_shot_kl: float) -> None:
    table = make_table()

    def residual(**settings: Any) -> Tensor:
        host = TaskRes(table, KNOWN, "{}", **TaskRes.unknown_options(UNKNOWN))
        train(OGEN(host, unknown=UNKNOWN, **{**OFF, "zero_shot_kl": zero_shot_kl, **settings}), make_bank(table))
        return host.residual.detach()

    trained, without = residual(**SMALL, generator="text-only", synthesized_ce=1.0), residual()
    assert (trained.norm(dim=1) > 1e-3).all() and (without[: len(KNOWN)].norm(dim=1) > 1e-3).all()
    others = without[len(KNOWN) :]
    if zero_shot_kl:  # real images pull at them too, for what the known rows do to their zero-shot scores
        assert (others.norm(dim=1) > 0).all()
    else:
        assert others.abs().max() == 0


def test_synthesized_rows_of_known_classes_alone_leave_unknown_names_less_to_learn() -> None:
    """With terms inside each side only, rows made for known classes never reach an unknown name's row."""
    table = make_table()
    host = TaskRes(table, KNOWN, "{}", extra_names=UNKNOWN)
    train(
        OGEN(
            host,
            unknown=UNKNOWN,
            **{**OFF, **SMALL, "generator": "text-only", "synthesized_ce_within": 1.0, "synthesize": "known"},
        ),
        make_bank(table),
    )
    assert host.residual[: len(KNOWN)].norm(dim=1).min() > 1e-3 and host.residual[len(KNOWN) :].abs().max() == 0


# --- teachers ---------------------------------------------------------------------------------------------


def average(snapshots: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """``sum of weights * snapshots``, the oldest with what the others leave."""
    n = len(snapshots)
    weights = [decay ** (n - 1)] + [(1 - decay) * decay ** (n - 1 - i) for i in range(1, n)]
    return {
        name: sum((w * s[name].double() for w, s in zip(weights, snapshots, strict=True)), torch.zeros(())).float()
        for name in snapshots[0]
    }


def close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("teacher", ["almt", "mean"])
def test_an_epoch_teacher_is_its_closed_form_at_every_epoch(teacher: str) -> None:
    total, low, high, decay = 8, 1, 4, 0.7
    model = OGEN(
        adapter(make_table()),
        unknown=UNKNOWN,
        **{**EVERYTHING, "teacher": teacher, "decay": decay, "m_min": low, "m_max": high},
    )
    seen: list[dict[str, Tensor]] = []
    sizes = []

    def measure(host: Host, epoch: int) -> dict[str, float]:
        seen.append(values(host))
        m = math.floor((high - low) * (1 + math.cos(math.pi * (epoch + total) / total)) / 2) + low
        window = seen[-(m + 1) :] if teacher == "almt" else seen
        sizes.append(len(window))
        close(model.teacher.state(), average(window, decay))
        return {}

    history = train(model, make_bank(model.clip), measure, epochs=total)
    assert len(sizes) == total and (teacher == "mean" or sizes[-1] == 5 > sizes[2])
    assert history.column("teacher") != [] and "teacher" not in history.epochs[0]  # no teacher before the first epoch
    assert [record["epoch"] for record in history.epochs if "teacher" in record] == list(range(2, total + 1))


def test_a_step_teacher_is_its_closed_form() -> None:
    """It takes the tensors that every step ends with, those of the last step too."""
    decay = 0.8
    host = Watched(make_table())
    model = OGEN(host, unknown=UNKNOWN, **{**EVERYTHING, "teacher": "ema", "decay": decay})

    def measure(_: Host, epoch: int) -> dict[str, float]:
        assert len(host.steps) == 3 * epoch
        close(model.teacher.state(), average([*host.steps, values(model)], decay))
        return {}

    train(model, make_bank(model.clip), measure, epochs=3)  # 24 images, 8 a step
    assert not same(host.steps[0], host.steps[1])


@pytest.mark.parametrize("teacher", ["ema", "mean", "almt"])
def test_the_host_ends_with_its_own_tensors_or_the_teachers(teacher: str) -> None:
    ends, paths = {}, {}
    for keep in (False, True):
        model = OGEN(adapter(make_table()), **{**EVERYTHING, "teacher": teacher, "keep_teacher": keep})
        paths[keep] = []
        train(model, make_bank(model.clip), lambda h, e: paths[keep].append(values(h)) or {})  # noqa: B023
        ends[keep] = values(model)
        assert same(values(model), model.teacher.state()) == keep
        averaged = model.teacher.state()
    close(ends[True], averaged)
    # The student's path is its own until the end.
    assert [same(a, b) for a, b in zip(*paths.values(), strict=True)] == [True, True, True, False]


def test_the_teacher_is_asked_once_an_epoch_where_weights_are_fixed() -> None:
    host = Watched(make_table())
    model = OGEN(host, unknown=UNKNOWN, name_groups=2, **{**EVERYTHING, "zero_shot_share": 0.0, "teacher": "mean"})
    counts, everything = [], (*KNOWN, *UNKNOWN)

    def measure(_: Host, epoch: int) -> dict[str, float]:
        asked = [up for names, up in host.calls if names == everything]
        counts.append((len(asked), len(host.calls)))
        torch.testing.assert_close(asked[-1], model.teacher.state()["up"])
        host.calls.clear()
        return {}

    train(model, make_bank(model.clip), measure, epochs=3)
    assert counts == [(1, 4)] * 3  # three steps of the student, one pass of the teacher


def test_the_term_is_the_distance_to_the_teacher_of_the_last_epoch() -> None:
    """Recomputed from the outside for one batch of all images, with and without weights of every image."""
    for make in (adapter, lambda t: PerImage(t, KNOWN)):
        host = make(make_table())
        model = OGEN(host, **{**OFF, "teacher": "mean", "teacher_weight": 0.5, "teacher_loss": "l2", "decay": 0.6})
        bank = make_bank(model.clip, KNOWN)
        seen: list[dict[str, Tensor]] = [values(host)]
        history = train(model, bank, lambda h, e: seen.append(values(h)) or {}, epochs=4, batch_size=64)  # noqa: B023
        z = bank.features[:, 0]
        for epoch in (2, 3, 4):
            logits = []
            for tensors in (seen[epoch - 1], average(seen[1:epoch], 0.6)):
                host.load_state_dict(tensors)
                logits.append(host.logits(z, host.class_weights(z=z)).detach())
            expected = 0.5 * (logits[0] - logits[1]).square().mean().item()
            assert history.epochs[epoch - 1]["teacher"] == pytest.approx(expected, rel=1e-3, abs=1e-9)
        assert history.column("teacher")[-1] > 1e-6


def test_the_teacher_is_asked_for_every_batch_where_weights_depend_on_images() -> None:
    host = PerImage(make_table(), KNOWN)
    model = OGEN(host, unknown=UNKNOWN, name_groups=2, **{**EVERYTHING, "zero_shot_share": 0.0, "teacher": "mean"})
    per_epoch = []

    def measure(_: Host, epoch: int) -> dict[str, float]:
        per_epoch.append(list(host.calls))
        host.calls.clear()
        return {}

    train(model, make_bank(model.clip), measure, epochs=3)
    assert [sum(rows > 1 for _, rows, _ in calls) for calls in per_epoch] == [3, 6, 6]
    for calls in per_epoch[1:]:
        asked = [call for call in calls if call[1] > 1]
        for student, teacher in zip(asked[::2], asked[1::2], strict=True):
            assert student[:2] == teacher[:2] and student[1] == 8 + SMALL["rows"]
        assert all(torch.equal(t[2], asked[1][2]) for t in asked[1::2])  # one teacher all along
        assert not any(torch.equal(s[2], asked[1][2]) for s in asked[2::2])


# --- precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["ogenlib", "paper", "released-code", "zero-shot-kl"])
def test_bf16_trains_fp32_parameters_to_nearly_the_same(clip, toy_bank, preset: str) -> None:
    settings = {"epochs": 3, "warmup_epochs": 0, "batch_size": 8, "optimizer": "sgd", "lr": 0.01}
    ends, start = {}, CoOp(clip, toy_bank.classnames, "an icon of a").context.detach()
    for precision in ("fp32", "bf16"):
        host = CoOp(clip, toy_bank.classnames, "an icon of a")
        model = OGEN(host, unknown=["cat", "bus"], preset=preset, **{**SMALL, "per_class": 8})
        history = fit(model, toy_bank, precision=precision, **settings)
        assert host.context.dtype == torch.float32
        if model.rows is not None:
            assert {p.dtype for p in model.rows.generator.parameters()} == {torch.float32}
        assert all(math.isfinite(v) for record in history.epochs for v in record.values())
        ends[precision] = host.context.detach().clone()
    moved = (ends["fp32"] - start).norm()
    assert 0 < (ends["fp32"] - ends["bf16"]).norm() < 0.1 * moved


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", ["ogenlib", "paper"])
def test_another_device_ends_where_the_cpu_does(preset: str) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        table = make_table(device)
        model = OGEN(adapter(table), unknown=UNKNOWN, preset=preset, **{**SMALL, "dropout": 0.0})
        train(model, make_bank(table), epochs=2, optimizer="sgd")
        ends.append({name: value.cpu() for name, value in values(model).items()})
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-4, rtol=1e-3)
